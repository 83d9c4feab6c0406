"""One module for each library, each with its LIBRARY: how the library itself would be asked for each method's meta-gradient.

A function is what the doctor examines: fn(problem, params, batch) -> {name: gradient}, the mean over tasks. The library's own public calls do all
differentiation; what is ours is the order of calls that its documentation shows.
"""
from importlib import import_module

MODULES = ("torch_loop", "torch_func", "higher_loop", "learn2learn_maml", "torchopt_meta", "betty_problems", "jax_grad", "jaxopt_solvers",
           "optax_sgd")


def libraries():
    """{name: the module it is described in}, in the order of the table."""
    return {import_module(f"adapters.{module}").LIBRARY.name: module for module in MODULES}
