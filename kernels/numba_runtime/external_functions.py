"""Functions that compiled functions call by their symbol, and that are therefore compiled once.

Numba compiles into a function all that it calls, and what those call, again on every level and with all optimisations. For small
functions that is right. The few large ones are compiled by themselves, and who calls them knows their symbol only. `link` makes the
symbols known; that must come before anything that calls them is compiled or loaded.
"""

from functools import cache
from types import FunctionType

import numpy as np
from llvmlite import binding
from numba import njit, types
from numba.core import cgutils
from numba.core.sigutils import normalize_signature
from numba.extending import intrinsic

functions = []  # all there are; each stands in the module that defines it


def external(arguments):
    """Decorator for a function that returns nothing: arguments are its types in Numba's words, F being the precision, an array of which
    is among them. A compiled function calls it with one tuple: `accumulate((c, a, ...))`. Arrays lie in one piece."""

    def decorate(function):
        @intrinsic
        def call(typingctx, values):
            precision = next(
                str(t.dtype)
                for t in values
                if isinstance(t, types.Array) and isinstance(t.dtype, types.Float)
            )
            expected = types_of(arguments, precision)
            if tuple(map(in_one_piece, values)) != expected:
                raise TypeError(f"{function.__name__}: expected {expected}, got {tuple(values)}")

            def codegen(context, builder, signature, args):
                kind = context.call_conv.get_function_type(types.void, expected)
                called = cgutils.get_or_insert_function(
                    builder.module, kind, symbol(function, precision)
                )
                context.call_conv.call_function(
                    builder, called, types.void, expected, cgutils.unpack_tuple(builder, args[0])
                )
                return context.get_dummy_value()

            return types.void(values), codegen

        functions.append((function, arguments))
        return call

    return decorate


def in_one_piece(kind):
    """A row of an array whose rows may lie apart has a type of its own, though its numbers are neighbours."""
    return kind.copy(layout="C") if isinstance(kind, types.Array) and kind.ndim == 1 else kind


def symbol(function, precision):
    return f"{function.__module__}.{function.__name__}.{precision}"


def types_of(arguments, precision):
    """Numba's types of all arguments."""
    return tuple(normalize_signature(f"void({arguments.replace('F', precision)})")[0])


def renamed(function, suffix):
    """A copy under a longer name: Numba's cache goes by a function's name, its own file and the types of its arguments, so that it
    would not tell one thread from many, nor see a change in what the kernels share."""
    copy = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_{suffix}")
    copy.__qualname__, copy.__module__ = copy.__name__, function.__module__
    return copy


def link(precision, suffix):
    """Makes the symbols known of all functions there are so far, compiled for a precision; suffix: of their names in Numba's cache."""
    for function, arguments in functions:
        compiled(function, arguments, np.dtype(precision).name, suffix)


@cache
def compiled(function, arguments, precision, suffix):
    """The function under its symbol."""
    run = njit(
        f"void({arguments.replace('F', precision)})", cache=True, error_model="numpy", nogil=True
    )(renamed(function, suffix))
    (made,) = run.overloads.values()
    binding.add_symbol(
        symbol(function, precision),
        made.library.get_pointer_to_function(made.fndesc.llvm_func_name),
    )
    return run
