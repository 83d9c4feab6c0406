"""Functions that other compiled functions call by symbol, compiled once per precision.

Numba compiles everything that a function calls into that function, at every level and
with all optimisations. For small functions that is right. The few large ones are
compiled on their own, and their callers contain only the symbol. `link` defines the
symbols; it must run before any caller is compiled or loaded.
"""

from functools import cache
from types import FunctionType

import numpy as np
from llvmlite import binding
from numba import types
from numba.core import cgutils
from numba.core.sigutils import normalize_signature
from numba.extending import intrinsic

from refmaml.kernels.numba_runtime.compilation import code_checksum, compile_function

functions = []  # (function, argument types) of all external functions imported so far


def external(arguments):
    """Decorator for a function that returns nothing.

    arguments: its types in Numba's notation, F standing for the precision; at least one
    is an array of F, and all arrays are contiguous. A compiled function passes one
    tuple: `accumulate((c, a, ...))`. Raises TypeError at compilation on other types.
    """

    def decorate(function):
        @intrinsic
        def call(typingctx, values):
            precision = next(
                str(t.dtype)
                for t in values
                if isinstance(t, types.Array) and isinstance(t.dtype, types.Float)
            )
            expected = types_of(arguments, precision)
            if tuple(map(as_contiguous, values)) != expected:
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


def as_contiguous(kind):
    """A row of an array with gaps between its rows has a type of its own in Numba,
    though the elements of the row are contiguous."""
    return kind.copy(layout="C") if isinstance(kind, types.Array) and kind.ndim == 1 else kind


def symbol(function, precision):
    return f"{function.__module__}.{function.__name__}.{precision}"


def types_of(arguments, precision):
    """Numba's types of all arguments."""
    return tuple(normalize_signature(f"void({arguments.replace('F', precision)})")[0])


def renamed(function, suffix):
    """A copy of the function under a longer name.

    Numba's cache looks up a function's name, its file and its argument types. Without
    the suffix it would confuse the versions for one thread and for several, and miss
    changes in the functions that this one calls.
    """
    copy = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_{suffix}")
    copy.__qualname__, copy.__module__ = copy.__name__, function.__module__
    return copy


def link(precision):
    """Defines the symbols of all external functions imported so far, for a precision.

    Returns how many there are.
    """
    for number, (function, arguments) in enumerate(functions, 1):
        define_symbol(function, arguments, np.dtype(precision).name, number)
    return len(functions)


@cache
def define_symbol(function, arguments, precision, number):
    """The compiled function, callable under its symbol. (The cache keeps it alive.)"""
    run = compile_function(
        renamed(function, code_checksum()),
        f"void({arguments.replace('F', precision)})",
        function.__name__,
        number,
        len(functions) + 1,
    )
    (made,) = run.overloads.values()
    binding.add_symbol(
        symbol(function, precision),
        made.library.get_pointer_to_function(made.fndesc.llvm_func_name),
    )
    return run
