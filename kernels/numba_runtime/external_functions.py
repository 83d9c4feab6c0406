"""Functions that other compiled functions call by address, compiled once per precision.

Numba compiles everything that a function calls into that function, at every level and
with all optimisations. For small functions that is right. A large one is an external
function: it is compiled on its own, and its callers contain only the place in memory
where its address is. So external functions may be compiled in any order, by several
processes, and only when a call at hand needs them (preparation.py).
"""

import ctypes
import os
import sys
from functools import cached_property

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.sigutils import normalize_signature
from numba.extending import intrinsic

from refmaml.kernels.numba_runtime.call_graph import bytecode_size, externals_called
from refmaml.kernels.numba_runtime.compilation import code_checksum, compile_function, renamed

PRECISIONS = ("float32", "float64")


@ctypes.CFUNCTYPE(None)
def unprepared():
    """Is at every address before the function is prepared: a caller cannot go on."""
    print("refmaml: a compiled function called one that is not prepared", file=sys.stderr)
    sys.stderr.flush()
    os.abort()


class External:
    """A function that returns nothing, and its address in each precision.

    arguments     its types in Numba's notation, F standing for the precision; arrays
                  are contiguous
    name          its name in its module, if it is defined under another one
    on_demand     compiled only where it is named (preparation.py), not with its callers
    from_python   also callable from Python, as `python[precision]`
    allocates     False for a function that neither makes arrays nor calls an `inner`
                  function that returns a new one. It does not count references to its
                  arguments, which are its caller's: 14 calls less for 7 arrays, as long
                  as a small matrix product

    A function may enclose plain numbers only. Anything else has a different key in
    Numba's cache in each process.
    """

    def __init__(
        self, function, arguments, name=None, on_demand=False, from_python=False, allocates=True
    ):
        function.__name__ = name or function.__name__
        self.function, self.arguments, self.on_demand = function, arguments, on_demand
        self.from_python, self.allocates, self.python = from_python, allocates, {}
        self.name = f"{function.__module__}.{function.__name__}"
        stub = ctypes.cast(unprepared, ctypes.c_void_p).value
        self.addresses = {precision: ctypes.c_void_p(stub) for precision in PRECISIONS}
        for precision, address in self.addresses.items():
            binding.add_symbol(self.symbol(precision), ctypes.addressof(address))

    def symbol(self, precision):
        return f"{self.name}.{precision}"

    def types(self, precision):
        """Numba's types of all arguments."""
        return tuple(normalize_signature(f"void({self.arguments.replace('F', precision)})")[0])

    @cached_property
    def calls(self):
        """The external functions that it calls, but those on demand."""
        return [called for called in externals_called(self.function) if not called.on_demand]

    @cached_property
    def size(self):
        """Grows with the time that the compilation takes: the bytes of its bytecode."""
        return bytecode_size(self.function)

    def prepared(self, precision):
        return precision in self.python

    def compile(self, precision, number, total, effort):
        """Compiles it for a precision, or loads it. Returns whether it is prepared now.

        number, total, effort: as for compile_function.
        """
        run = compile_function(
            renamed(self.function, code_checksum()),
            f"void({self.arguments.replace('F', precision)})",
            self.function.__name__,
            number,
            total,
            effort=effort,
            from_python=self.from_python,
            allocates=self.allocates,
        )
        if run is None:
            return False
        (made,) = run.overloads.values()
        self.addresses[precision].value = made.library.get_pointer_to_function(
            made.fndesc.llvm_func_name
        )
        self.python[precision] = run
        return True

    def emit_call(self, context, builder, precision, arguments):
        """Emits a call of whatever is at the address when the caller runs."""
        expected = self.types(precision)
        kind = context.call_conv.get_function_type(types.void, expected).as_pointer()
        name = self.symbol(precision)
        place = builder.module.globals.get(name) or ir.GlobalVariable(builder.module, kind, name)
        context.call_conv.call_function(
            builder, builder.load(place), types.void, expected, arguments
        )


def external(arguments, **options):
    """Decorator: makes an External of a function (see there).

    At least one argument is an array of F. A compiled function calls it as any other,
    or with all arguments in one tuple: `accumulate((c, a, ...))`. Raises TypeError at
    compilation on other types.
    """

    def decorate(function):
        made = External(function, arguments, **options)

        @intrinsic
        def call(typingctx, *values):
            # The arguments one by one, or all of them in one tuple.
            packed = len(values) == 1 and isinstance(values[0], types.BaseTuple)
            given = tuple(values[0]) if packed else values
            precision = next(
                str(t.dtype)
                for t in given
                if isinstance(t, types.Array) and isinstance(t.dtype, types.Float)
            )
            expected = made.types(precision)
            if tuple(map(as_contiguous, given)) != expected:
                raise TypeError(f"{function.__name__}: expected {expected}, got {given}")

            def codegen(context, builder, signature, args):
                unpacked = cgutils.unpack_tuple(builder, args[0])
                if packed:
                    unpacked = cgutils.unpack_tuple(builder, unpacked[0])
                made.emit_call(context, builder, precision, unpacked)
                return context.get_dummy_value()

            return types.void(types.StarArgTuple(values)), codegen

        call.external = made
        return call

    return decorate


def as_contiguous(kind):
    """A row of an array with gaps between its rows has a type of its own in Numba,
    though the elements of the row are contiguous."""
    return kind.copy(layout="C") if isinstance(kind, types.Array) and kind.ndim == 1 else kind
