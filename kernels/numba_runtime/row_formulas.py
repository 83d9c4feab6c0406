"""A formula for every channel of every pixel, and sums over pixels: one loop over rows of channels, written as the formula is on paper.

    @row_formula("pixel: x", "window: y", "channel: mean s", "number: slope", "sum: total")
    def formula(x, y, mean, s, slope):
        return {"y": s * (x - mean), "total": x}

reads x[pixels[k] + c] and y[windows[k] + c] for k < count and every channel c, replaces those arrays it returns a value for, and adds
to the sums, which are float64. What belongs to a channel stays in registers while k runs, two vectors of channels at a time. Numba's own
loops are not as quick here: a row of 64 channels is 4 vectors long, and before each the compiler asks anew whether any of ten arrays
overlap.
"""

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.simd import INTEGER, VECTOR, Vectors, loop, pointers, splat

AT_A_TIME = 2  # vectors of channels; all are masked, which costs nothing here and spares compiling everything twice


class Lanes:
    """A vector in a formula: the arithmetic of numbers, lane by lane."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def of(self, other):
        """Another operand as a vector of this type; numbers become constants in every lane."""
        if isinstance(other, Lanes):
            return other.value
        return ir.Constant(self.value.type, [other] * self.value.type.count)

    def __add__(self, other):
        return Lanes(self.builder, self.builder.fadd(self.value, self.of(other)))

    def __sub__(self, other):
        return Lanes(self.builder, self.builder.fsub(self.value, self.of(other)))

    def __mul__(self, other):
        return Lanes(self.builder, self.builder.fmul(self.value, self.of(other)))

    def __or__(self, other):
        return Lanes(self.builder, self.builder.or_(self.value, self.of(other)))

    def __and__(self, other):
        return Lanes(self.builder, self.builder.and_(self.value, self.of(other)))

    def compared(self, sign, other):
        return Lanes(self.builder, self.builder.fcmp_ordered(sign, self.value, self.of(other)))

    def __le__(self, other):
        return self.compared("<=", other)

    def __gt__(self, other):
        return self.compared(">", other)

    def is_nan(self):
        return Lanes(self.builder, self.builder.fcmp_unordered("uno", self.value, self.value))

    def is_number(self):
        return self.compared("ord", self)

    def is_place(self, here):
        """Where small integers are equal."""
        return Lanes(self.builder, self.builder.icmp_signed("==", self.value, self.of(here)))

    def where(self, yes, no):
        """yes where this holds, no elsewhere."""
        model = yes if isinstance(yes, Lanes) else no
        return Lanes(self.builder, self.builder.select(self.value, model.of(yes), model.of(no)))


class Arguments(NamedTuple):
    """The names of a formula's arguments by kind, in order."""

    pixel: tuple
    window: tuple
    channel: tuple
    number: tuple
    sum: tuple

    @property
    def names(self):
        return (*self.pixel, *self.window, *self.channel, *self.number, *self.sum)


def arguments_of(groups):
    """Arguments from lines such as "pixel: x dx"."""
    named = {
        kind: tuple(names.split()) for kind, _, names in (group.partition(":") for group in groups)
    }
    return Arguments(*(named.get(kind, ()) for kind in Arguments._fields))


def row_formula(*groups):
    """Decorator: a compiled function (arguments in the order of the groups, pixels, windows, count, C), the arguments a tuple of flat
    arrays and numbers. Numbers of a formula and its arrays share a precision; those of kind "number" may also be int16."""
    names = arguments_of(groups)

    def decorate(formula):
        for_channels = block(formula, names)

        @inner()
        def run(arguments, pixels, windows, count, C):
            if count > 0:
                for j in range(0, C, AT_A_TIME * VECTOR // arguments[0].itemsize):
                    for_channels(arguments, pixels, windows, count, j, C)

        run.__doc__ = formula.__doc__
        return run

    return decorate


def block(formula, names):
    """The formula for the channels from j that so many vectors hold, and none from C on."""

    def codegen(context, builder, signature, args):
        pixels, windows = pointers(context, builder, signature, args, 1, 2)
        Rows(context, builder, signature.args[0], args[0], names).run(
            formula, pixels, windows, *args[3:]
        )
        return context.get_dummy_value()

    @intrinsic
    def run(typingctx, arguments, pixels, windows, count, j, C):
        return types.void(arguments, pixels, windows, count, j, C), codegen

    return run


class Rows:
    """The code of one block of channels: what belongs to a channel is loaded, the pixels go by, the sums are stored."""

    def __init__(self, context, builder, types_of, tuple_of, names):
        self.builder, self.names = builder, names
        values = [builder.extract_value(tuple_of, i) for i in range(len(types_of))]
        dtype = dict(zip(names.names, types_of, strict=True))
        self.lanes = VECTOR // context.get_abi_sizeof(
            context.get_data_type(dtype[names.names[0]].dtype)
        )
        self.kind, self.place = {}, {}
        for (name, t), value in zip(dtype.items(), values, strict=True):
            if isinstance(t, types.Array):
                self.kind[name] = Vectors(context, builder, types.void(t), 0, self.lanes)
                self.place[name] = context.make_array(t)(context, builder, value).data
            else:
                self.place[name] = value

    def at(self, name, row, j):
        """The places of the block's vectors in an array, from the number `row` on."""
        start = j if row is None else self.builder.add(row, j)
        return [
            self.kind[name].at(self.place[name], self.builder.add(start, INTEGER(i * self.lanes)))
            for i in range(AT_A_TIME)
        ]

    def constant(self, name):
        """A number in every lane."""
        value = self.place[name]
        return Lanes(
            self.builder, splat(self.builder, value, ir.VectorType(value.type, self.lanes))
        )

    def load(self, name, places):
        return [self.kind[name].load(p, mask) for p, mask in zip(places, self.masks, strict=True)]

    def run(self, formula, pixels, windows, count, j, end):
        builder, names = self.builder, self.names
        left = [builder.sub(end, builder.add(j, INTEGER(i * self.lanes))) for i in range(AT_A_TIME)]
        self.masks = [next(iter(self.kind.values())).lanes_below(n) for n in left]
        held = {
            name: [Lanes(builder, value) for value in self.load(name, self.at(name, None, j))]
            for name in names.channel
        }
        held |= {name: [self.constant(name)] * AT_A_TIME for name in names.number}
        places = {name: self.at(name, None, j) for name in names.sum}
        before = [value for name in names.sum for value in self.load(name, places[name])]
        after = loop(
            builder,
            INTEGER(0),
            count,
            before,
            lambda k, sums: self.step(formula, held, pixels, windows, k, j, sums),
        )
        stores = [
            (name, p, mask)
            for name in names.sum
            for p, mask in zip(places[name], self.masks, strict=True)
        ]
        for (name, p, mask), value in zip(stores, after, strict=True):
            self.kind[name].store(value, p, mask)

    def step(self, formula, held, pixels, windows, k, j, sums):
        """One pixel: loads, the formula, stores; the sums with its terms added."""
        builder, names, sums = self.builder, self.names, list(sums)
        rows = [builder.load(builder.gep(array, [k])) for array in (pixels, windows)]
        places = {
            name: self.at(name, row, j)
            for kind, row in zip((names.pixel, names.window), rows, strict=True)
            for name in kind
        }
        values = {
            name: [Lanes(builder, value) for value in self.load(name, where)]
            for name, where in places.items()
        } | held
        results = [
            formula(**{name: values[name][i] for name in names.names if name not in names.sum})
            for i in range(AT_A_TIME)
        ]
        for i, result in enumerate(results):
            for name, value in result.items():
                if name in places:
                    self.kind[name].store(value.value, places[name][i], self.masks[i])
                else:
                    at = names.sum.index(name) * AT_A_TIME + i
                    sums[at] = builder.fadd(sums[at], self.widened(value.value, sums[at].type))
        return sums

    def widened(self, value, wide):
        return value if value.type == wide else self.builder.fpext(value, wide)
