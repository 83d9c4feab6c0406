"""Vectors of numbers in LLVM's language, for the loops that Numba's own compilation does not put into registers."""

from llvmlite import binding, ir
from numba.core import cgutils

WIDE = bool(
    binding.get_host_cpu_features().get("avx512f")
)  # 32 registers of 64 bytes; else count on 16 of 32
VECTOR = 64 if WIDE else 32  # bytes
INTEGER = ir.IntType(64)  # of offsets and counts


class Vectors:
    """How the vectors of an array are loaded, stored and multiplied; with a mask, only some of their numbers.

    `lanes` numbers fit in one; for the small integers that go along with floating-point numbers, as many as of those.
    """

    def __init__(self, context, builder, signature, array, lanes=None):
        dtype = signature.args[array].dtype
        self.builder, self.number = builder, context.get_data_type(dtype)
        self.size, self.letter = (
            context.get_abi_sizeof(self.number),
            "i" if "int" in str(dtype) else "f",
        )
        self.type = ir.VectorType(self.number, lanes or VECTOR // self.size)

    def lanes_below(self, count):
        """A mask of the first `count` lanes."""
        lanes = ir.Constant(ir.VectorType(INTEGER, self.type.count), list(range(self.type.count)))
        return self.builder.icmp_signed("<", lanes, splat(self.builder, count, lanes.type))

    def at(self, array, index):
        return self.builder.bitcast(self.builder.gep(array, [index]), self.type.as_pointer())

    def load(self, place, mask=None):
        """The vector at a place; 0 where the mask is off."""
        if mask is None:
            return self.builder.load(place, align=self.size)
        return self.masked("load", self.type, place, self.align, mask, ir.Constant(self.type, None))

    def store(self, value, place, mask=None):
        if mask is None:
            return self.builder.store(value, place, align=self.size)
        return self.masked("store", ir.VoidType(), value, place, self.align, mask)

    @property
    def align(self):
        return ir.IntType(32)(self.size)

    def masked(self, verb, returned, *args):
        kind = f"v{self.type.count}{self.letter}{8 * self.size}.p0"
        function = ir.FunctionType(returned, [arg.type for arg in args])
        return self.builder.call(
            cgutils.get_or_insert_function(
                self.builder.module, function, f"llvm.masked.{verb}.{kind}"
            ),
            args,
        )

    def multiply_add(self, x, y, z):
        """x y + z, rounded once where the machine can."""
        function = ir.FunctionType(self.type, [self.type] * 3)
        name = f"llvm.fmuladd.v{self.type.count}f{8 * self.size}"
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, function, name), [x, y, z]
        )


def splat(builder, value, vector):
    """`value` in every lane."""
    undefined, lane = ir.Constant(vector, ir.Undefined), ir.IntType(32)
    one = builder.insert_element(undefined, value, lane(0))
    return builder.shuffle_vector(
        one, undefined, ir.Constant(ir.VectorType(lane, vector.count), [0] * vector.count)
    )


def pointers(context, builder, signature, args, *places):
    """Where the numbers of the arrays among the arguments begin."""
    return [context.make_array(signature.args[i])(context, builder, args[i]).data for i in places]


def loop(builder, k0, k1, start, step):
    """sums = start; for k in k0 .. k1: sums = step(k, sums), all of them in registers; at least once. Returns the last sums."""
    entry, body, done = (
        builder.block,
        builder.append_basic_block("k"),
        builder.append_basic_block("done"),
    )
    builder.branch(body)
    builder.position_at_end(body)
    k, sums = builder.phi(INTEGER), [builder.phi(value.type) for value in start]
    after, following = step(k, sums), builder.add(k, INTEGER(1))
    builder.cbranch(builder.icmp_signed("<", following, k1), body, done)
    for phi, first, then in zip([k, *sums], [k0, *start], [following, *after], strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(then, body)
    builder.position_at_end(done)
    return after
