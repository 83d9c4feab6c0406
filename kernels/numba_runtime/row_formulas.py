"""Formulas for every channel of every pixel, and sums over pixels, in one loop.

    @row_formula("pixel: x", "window: y", "channel: mean s", "number: slope", "sum:
    total") def formula(x, y, mean, s, slope):
        return {"y": s * (x - mean), "total": x}

reads x[pixels[k] + c] and y[windows[k] + c] for k < count and every channel c. It
replaces the arrays that it returns a value for, and adds to the sums, which are
float64. Values that belong to a channel stay in registers while k runs, for two vectors
of channels at a time. Numba's own loops are slower here: a row of 64 channels is 4
vectors long, and before each row the compiled code tests again whether any of ten
arrays overlap.
"""

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refmaml.kernels.numba_runtime.simd import INTEGER, VECTOR, Vectors, loop, pointers, splat

# Vectors of channels per block. All are masked: unmasked versions would double the
# compilation. Only stores branch to an unmasked one, as masked stores can be slow.
VECTORS_PER_BLOCK = 2
# So many pixels ahead a block asks for what it will read. Without that, arrays larger
# than the caches take 1.3 to 4 times as long.
AHEAD = 12


class Lanes:
    """A vector in a formula; arithmetic and comparisons act on each lane."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def operand(self, other):
        """Another operand as a vector of this type; a Python number
        fills every lane.
        """
        if isinstance(other, Lanes):
            return other.value
        return ir.Constant(self.value.type, [other] * self.value.type.count)

    def __add__(self, other):
        return Lanes(self.builder, self.builder.fadd(self.value, self.operand(other)))

    def __sub__(self, other):
        return Lanes(self.builder, self.builder.fsub(self.value, self.operand(other)))

    def __mul__(self, other):
        return Lanes(self.builder, self.builder.fmul(self.value, self.operand(other)))

    def __or__(self, other):
        return Lanes(self.builder, self.builder.or_(self.value, self.operand(other)))

    def __and__(self, other):
        return Lanes(self.builder, self.builder.and_(self.value, self.operand(other)))

    def compare(self, sign, other):
        return Lanes(self.builder, self.builder.fcmp_ordered(sign, self.value, self.operand(other)))

    def __le__(self, other):
        return self.compare("<=", other)

    def __gt__(self, other):
        return self.compare(">", other)

    def is_nan(self):
        return Lanes(self.builder, self.builder.fcmp_unordered("uno", self.value, self.value))

    def is_not_nan(self):
        return self.compare("ord", self)

    def equals(self, other):
        """Where integers are equal."""
        return Lanes(self.builder, self.builder.icmp_signed("==", self.value, self.operand(other)))

    def where(self, yes, no):
        """`yes` in the lanes where this condition is true, `no` in the others."""
        vector = yes if isinstance(yes, Lanes) else no
        return Lanes(
            self.builder, self.builder.select(self.value, vector.operand(yes), vector.operand(no))
        )


class Arguments(NamedTuple):
    """The names of a formula's arguments, by kind and in order."""

    pixel: tuple
    window: tuple
    channel: tuple
    number: tuple
    sum: tuple

    @property
    def names(self):
        return (*self.pixel, *self.window, *self.channel, *self.number, *self.sum)


def arguments_of(groups):
    """Arguments from strings such as "pixel: x dx"."""
    named = {
        kind: tuple(names.split()) for kind, _, names in (group.partition(":") for group in groups)
    }
    return Arguments(*(named.get(kind, ()) for kind in Arguments._fields))


def row_formula(*groups):
    """Decorator: makes a compiled function

        (arguments, px, wi, pixels, windows, count, C).

    `arguments` is a tuple of flat arrays and numbers in the order of the groups. Arrays
    of pixels begin at their element px, those of windows at wi. Arrays and numbers of a
    formula share a precision; a "number" may also be int16.
    """
    names = arguments_of(groups)

    def decorate(formula):
        def codegen(context, builder, signature, args):
            px, wi, count, C = args[1], args[2], *args[5:]
            pixels, windows = pointers(context, builder, signature, args, 3, 4)
            block = BlockEmitter(context, builder, signature.args[0], args[0], names)
            block.begin_at(px, wi)
            width = INTEGER(VECTORS_PER_BLOCK * block.lanes)
            some = builder.icmp_signed(">", count, INTEGER(0))
            with (
                builder.if_then(some),
                cgutils.for_range_slice(builder, INTEGER(0), C, width, INTEGER) as (j, _),
            ):
                block.emit(formula, pixels, windows, count, j, C)
            return context.get_dummy_value()

        @intrinsic
        def run(typingctx, arguments, px, wi, pixels, windows, count, C):
            integer = types.int64
            return types.void(
                arguments, integer, integer, pixels, windows, integer, integer
            ), codegen

        run.__doc__ = formula.__doc__
        return run

    return decorate


class BlockEmitter:
    """Emits the code of one block of channels.

    Channel values and sums are loaded, the loop runs over the pixels, sums are stored.
    """

    def __init__(self, context, builder, types_of, tuple_of, names):
        self.builder, self.names = builder, names
        values = [builder.extract_value(tuple_of, i) for i in range(len(types_of))]
        dtype = dict(zip(names.names, types_of, strict=True))
        self.lanes = VECTOR // context.get_abi_sizeof(
            context.get_data_type(dtype[names.names[0]].dtype)
        )
        self.vectors, self.value = {}, {}  # by name: how to load it; its address or number
        for (name, t), value in zip(dtype.items(), values, strict=True):
            if isinstance(t, types.Array):
                self.vectors[name] = Vectors(context, builder, types.void(t), 0, self.lanes)
                self.value[name] = context.make_array(t)(context, builder, value).data
            else:
                self.value[name] = value

    def begin_at(self, px, wi):
        """Lets the arrays of pixels and of windows begin at these elements."""
        for kind, start in ((self.names.pixel, px), (self.names.window, wi)):
            for name in kind:
                self.value[name] = self.builder.gep(self.value[name], [start])

    def addresses(self, name, row, j):
        """The addresses of the block's vectors in an array; row: where a row begins."""
        start = j if row is None else self.builder.add(row, j)
        return [
            self.vectors[name].at(
                self.value[name], self.builder.add(start, INTEGER(i * self.lanes))
            )
            for i in range(VECTORS_PER_BLOCK)
        ]

    def constant(self, name):
        """A number in every lane."""
        value = self.value[name]
        return Lanes(
            self.builder, splat(self.builder, value, ir.VectorType(value.type, self.lanes))
        )

    def load(self, name, addresses):
        return [
            self.vectors[name].load(p, mask) for p, mask in zip(addresses, self.masks, strict=True)
        ]

    def emit(self, formula, pixels, windows, count, j, end):
        """The whole block: channels from j, none from `end` on."""
        builder, names, self.count = self.builder, self.names, count
        left = [
            builder.sub(end, builder.add(j, INTEGER(i * self.lanes)))
            for i in range(VECTORS_PER_BLOCK)
        ]
        self.masks = [next(iter(self.vectors.values())).lanes_below(n) for n in left]
        self.whole = [builder.icmp_signed(">=", n, INTEGER(self.lanes)) for n in left]
        in_registers = {
            name: [Lanes(builder, v) for v in self.load(name, self.addresses(name, None, j))]
            for name in names.channel
        }
        in_registers |= {name: [self.constant(name)] * VECTORS_PER_BLOCK for name in names.number}
        addresses = {name: self.addresses(name, None, j) for name in names.sum}
        before = [value for name in names.sum for value in self.load(name, addresses[name])]
        after = loop(
            builder,
            INTEGER(0),
            count,
            before,
            lambda k, sums: self.step(formula, in_registers, pixels, windows, k, j, sums),
        )
        stores = [
            (name, p, mask)
            for name in names.sum
            for p, mask in zip(addresses[name], self.masks, strict=True)
        ]
        for (name, p, mask), value in zip(stores, after, strict=True):
            self.vectors[name].store(value, p, mask)

    def step(self, formula, in_registers, pixels, windows, k, j, sums):
        """One pixel: loads, the formula, stores. Returns the sums with
        its terms added.
        """
        builder, names, sums = self.builder, self.names, list(sums)
        rows = [builder.load(builder.gep(array, [k])) for array in (pixels, windows)]
        addresses = {
            name: self.addresses(name, row, j)
            for kind, row in zip((names.pixel, names.window), rows, strict=True)
            for name in kind
        }
        self.prefetch(pixels, windows, builder.add(k, INTEGER(AHEAD)), j)
        values = {
            name: [Lanes(builder, value) for value in self.load(name, where)]
            for name, where in addresses.items()
        } | in_registers
        results = [
            formula(**{name: values[name][i] for name in names.names if name not in names.sum})
            for i in range(VECTORS_PER_BLOCK)
        ]
        for i, result in enumerate(results):
            for name, value in result.items():
                if name in addresses:
                    where = addresses[name][i], self.whole[i], self.masks[i]
                    self.vectors[name].store_lanes(value.value, *where)
                else:
                    at = names.sum.index(name) * VECTORS_PER_BLOCK + i
                    sums[at] = builder.fadd(sums[at], self.widened(value.value, sums[at].type))
        return sums

    def addresses_at(self, pixels, windows, k, j):
        """The addresses of all arrays' vectors at pixel k, by name."""
        rows = [self.builder.load(self.builder.gep(array, [k])) for array in (pixels, windows)]
        return {
            name: self.addresses(name, row, j)
            for kind, row in zip((self.names.pixel, self.names.window), rows, strict=True)
            for name in kind
        }

    def prefetch(self, pixels, windows, k, j):
        """Asks for what the loop reads at pixel k, or at the last pixel."""
        builder, last = self.builder, self.builder.sub(self.count, INTEGER(1))
        k = builder.select(builder.icmp_signed("<", k, last), k, last)
        number, address = ir.IntType(32), ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [address, number, number, number]),
            "llvm.prefetch.p0",
        )
        read, keep, data = number(0), number(3), number(1)
        for places in self.addresses_at(pixels, windows, k, j).values():
            for place in places:
                builder.call(function, [builder.bitcast(place, address), read, keep, data])

    def widened(self, value, wide):
        """A float32 vector as float64, for a sum."""
        return value if value.type == wide else self.builder.fpext(value, wide)
