"""Vector instructions in LLVM's intermediate representation.

They are for the loops that Numba's own compilation does not keep in registers.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# With AVX-512 there are 32 registers of 64 bytes; otherwise 16 of 32 bytes are assumed.
WIDE = bool(binding.get_host_cpu_features().get("avx512f"))
VECTOR = 64 if WIDE else 32  # bytes
INTEGER = ir.IntType(64)  # the type of offsets and counts


@intrinsic
def lanes_of(typingctx, a):
    """How many elements of an array make a vector.

    It is a constant for the compiler, so that divisions by it become shifts: a division
    by a number in memory takes as long as ten vector operations.
    """

    def codegen(context, builder, signature, args):
        size = context.get_abi_sizeof(context.get_data_type(signature.args[0].dtype))
        return INTEGER(VECTOR // size)

    return types.int64(a), codegen


class Vectors:
    """Loads, stores and multiply-adds on vectors of one array; masked where one is
    given.

    lanes: elements of a vector. By default as many as fit; an int16 array that goes
    along with a floating-point array takes as many as that one.
    """

    def __init__(self, context, builder, signature, array, lanes=None):
        dtype = signature.args[array].dtype
        self.builder, self.element = builder, context.get_data_type(dtype)
        self.size = context.get_abi_sizeof(self.element)
        self.letter = "i" if "int" in str(dtype) else "f"
        self.type = ir.VectorType(self.element, lanes or VECTOR // self.size)

    def lanes_below(self, count):
        """A mask of the first `count` lanes."""
        lanes = ir.Constant(ir.VectorType(INTEGER, self.type.count), list(range(self.type.count)))
        return self.builder.icmp_signed("<", lanes, splat(self.builder, count, lanes.type))

    def at(self, array, index):
        """The address of the vector that begins at an index."""
        return self.builder.bitcast(self.builder.gep(array, [index]), self.type.as_pointer())

    def load(self, address, mask=None):
        """The vector at an address; 0 in the lanes that are masked out."""
        if mask is None:
            return self.builder.load(address, align=self.size)
        zero = ir.Constant(self.type, None)
        return self.masked("load", self.type, address, self.align, mask, zero)

    def store(self, value, address, mask=None):
        if mask is None:
            return self.builder.store(value, address, align=self.size)
        return self.masked("store", ir.VoidType(), value, address, self.align, mask)

    def store_lanes(self, value, address, whole, mask):
        """`store` with a mask; `whole` says that the mask is full, and none is needed.

        Masked stores of AVX2 are slow on AMD's processors (norm_act_pool/cpu.py).
        """
        with self.builder.if_else(whole) as (plain, masked):
            with plain:
                self.store(value, address)
            with masked:
                self.store(value, address, mask)

    @property
    def align(self):
        return ir.IntType(32)(self.size)

    def masked(self, verb, returned, *args):
        """A call of LLVM's masked load or store."""
        kind = f"v{self.type.count}{self.letter}{8 * self.size}.p0"
        function = ir.FunctionType(returned, [arg.type for arg in args])
        return self.builder.call(
            cgutils.get_or_insert_function(
                self.builder.module, function, f"llvm.masked.{verb}.{kind}"
            ),
            args,
        )

    def multiply_add(self, x, y, z):
        """x y + z, rounded once if the processor can."""
        function = ir.FunctionType(self.type, [self.type] * 3)
        name = f"llvm.fmuladd.v{self.type.count}f{8 * self.size}"
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, function, name), [x, y, z]
        )


def splat(builder, value, vector):
    """`value` in every lane of a vector type."""
    undefined, lane = ir.Constant(vector, ir.Undefined), ir.IntType(32)
    one = builder.insert_element(undefined, value, lane(0))
    return builder.shuffle_vector(
        one, undefined, ir.Constant(ir.VectorType(lane, vector.count), [0] * vector.count)
    )


def pointers(context, builder, signature, args, *positions):
    """The addresses of the first elements of the arrays at these argument positions."""
    return [
        context.make_array(signature.args[i])(context, builder, args[i]).data for i in positions
    ]


def loop(builder, k0, k1, start, step):
    """sums = start; for k in k0 .. k1: sums = step(k, sums), with all sums in
    registers.

    The body runs at least once. Returns the last sums.
    """
    entry = builder.block
    body, done = builder.append_basic_block("k"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    k, sums = builder.phi(INTEGER), [builder.phi(value.type) for value in start]
    after, next_k = step(k, sums), builder.add(k, INTEGER(1))
    end = builder.block  # another block than `body` if the step has branches
    builder.cbranch(builder.icmp_signed("<", next_k, k1), body, done)
    for phi, first, updated in zip([k, *sums], [k0, *start], [next_k, *after], strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(updated, end)
    builder.position_at_end(done)
    return after
