"""Functions that only compiled functions call: without the wrappers that calls from Python need, which take as long to compile as they."""

from functools import partial

from numba import njit

inner = partial(njit, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = partial(
    inner, inline="always"
)  # where a function is called once or is a line long: it is compiled with its caller
