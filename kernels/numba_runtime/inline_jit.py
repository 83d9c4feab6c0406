"""Decorators for functions that only compiled functions call.

    inner    compiled into each caller by LLVM
    inlined  inlined by Numba before type inference: for functions with one caller, or
             with one line

Neither has the wrappers that calls from Python need; those take as long to compile as
the function itself.
"""

from functools import partial

from numba import njit

inner = partial(njit, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = partial(inner, inline="always")
