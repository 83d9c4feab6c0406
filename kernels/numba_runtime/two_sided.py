"""R D R' of small matrices D, for as many channels at a time as a vector has lanes.

R is a constant matrix of p rows and q columns; D (q, q) and the result (p, p) are
matrices of vectors. All of it happens in registers, which Numba cannot express: the
code is LLVM's intermediate representation.

Where two rows of R differ only in signs, R = (e + o; e - o), e and o are computed once.
Where two columns do, sums and differences of the inputs are taken first.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refmaml.kernels.numba_runtime.simd import INTEGER, Vectors, pointers, splat

OUTSIDE = -1  # in a list of places: no number is there, it counts as 0


class Arithmetic:
    """Sums of vectors with constant factors. None stands for a vector of zeros."""

    def __init__(self, v):
        self.v = v

    def constant(self, number):
        return ir.Constant(self.v.type, [float(number)] * self.v.type.count)

    def add(self, a, b, sign=1):
        """a + b, or a - b for sign = -1."""
        if b is None:
            return a
        if a is None:
            return b if sign > 0 else self.v.builder.fneg(b)
        return (self.v.builder.fadd if sign > 0 else self.v.builder.fsub)(a, b)

    def combination(self, factors, values):
        """The sum of factors * values, from left to right."""
        total = None
        for factor, value in zip(factors, values, strict=True):
            if factor == 0 or value is None:
                continue
            if abs(factor) == 1:
                total = self.add(total, value, factor)
            elif total is None:
                total = self.v.builder.fmul(self.constant(factor), value)
            else:
                total = self.v.multiply_add(self.constant(factor), value, total)
        return total

    def times(self, R, values):
        """R times a column of vectors."""
        columns = [tuple(column) for column in zip(*R, strict=True)]
        for j in range(len(columns) - 1):
            if sign_pattern(columns[j], columns[j + 1]):
                return self.by_columns(R, values, j)
        return self.by_rows(R, values)

    def by_columns(self, R, values, j):
        """R times values, with sums and differences for each pair of columns."""
        values, R = list(values), [list(row) for row in R]
        while j < len(values) - 1:
            if sign_pattern([row[j] for row in R], [row[j + 1] for row in R]):
                a, b = values[j], values[j + 1]
                values[j], values[j + 1] = self.add(a, b), self.add(a, b, -1)
                for row in R:
                    same = row[j] == row[j + 1]
                    row[j], row[j + 1] = (row[j], 0) if same else (0, row[j])
                j += 1
            j += 1
        return [self.combination(row, values) for row in R]

    def by_rows(self, R, values):
        """R times values, with even and odd parts for each pair of rows."""
        out, i = [], 0
        while i < len(R):
            if i + 1 < len(R) and sign_pattern(R[i], R[i + 1]):
                same = [a if a == b else 0 for a, b in zip(R[i], R[i + 1], strict=True)]
                opposite = [a if a != b else 0 for a, b in zip(R[i], R[i + 1], strict=True)]
                e, o = self.combination(same, values), self.combination(opposite, values)
                out += [self.add(e, o), self.add(e, o, -1)]
                i += 2
            else:
                out.append(self.combination(R[i], values))
                i += 1
        return out


def sign_pattern(a, b):
    """Whether two rows differ, and only in signs."""
    return list(a) != list(b) and all(abs(x) == abs(y) for x, y in zip(a, b, strict=True))


def two_sided(R, gather=False, scatter=False):
    """transform(out, out_start, out_step, source, start, step, places, place):

        out(i, i') = sum_jj' R[i, j] R[i', j'] source(j, j')

    source(j, j') is the vector at start + (q j + j') step; or, if gather, at start +
    places[place + q j + j'], and 0 where that place is OUTSIDE. out(i, i') is at
    out_start + (p i + i') out_step; or, if scatter, at out_start + places[place + p i +
    i'], and not written where that place is OUTSIDE.
    """
    p, q = len(R), len(R[0])

    def codegen(context, builder, signature, args):
        out, source, places = pointers(context, builder, signature, args, 0, 3, 6)
        (out_start, out_step), (start, step), place = args[1:3], args[4:6], args[7]
        v = Vectors(context, builder, signature, 0)
        sums = Arithmetic(v)

        def at_place(k):
            return builder.load(builder.gep(places, [builder.add(place, INTEGER(k))]))

        def number(k):
            if not gather:
                return v.load(v.at(source, builder.add(start, builder.mul(step, INTEGER(k)))))
            where = at_place(k)
            inside = builder.icmp_signed(">=", where, INTEGER(0))
            offset = builder.select(inside, where, INTEGER(0))
            value = v.load(v.at(source, builder.add(start, offset)))
            mask = splat(builder, inside, ir.VectorType(ir.IntType(1), v.type.count))
            return builder.select(mask, value, ir.Constant(v.type, None))

        def write(k, value):
            if not scatter:
                return v.store(
                    value, v.at(out, builder.add(out_start, builder.mul(out_step, INTEGER(k))))
                )
            where = at_place(k)
            with builder.if_then(builder.icmp_signed(">=", where, INTEGER(0))):
                v.store(value, v.at(out, builder.add(out_start, where)))

        columns = [sums.times(R, [number(j * q + k) for j in range(q)]) for k in range(q)]
        for i in range(p):
            for k, value in enumerate(sums.times(R, [column[i] for column in columns])):
                write(i * p + k, value)
        return context.get_dummy_value()

    @intrinsic
    def run(typingctx, out, out_start, out_step, source, start, step, places, place):
        given = out, out_start, out_step, source, start, step, places, place
        return types.void(*given), codegen

    return run
