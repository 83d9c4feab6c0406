"""The one inner loop of all matrix products on the CPU: sums of outer products, gathered from anywhere.

    c[rows_c[r] + j]  +=  sum_{k0 <= k < k1}  a[rows_a[r] + steps_a[k]] * b[steps_b[k] + j]          0 <= j < width

a, b and c are flat arrays and the offsets say where in them a row or a column lies. So a convolution needs no patch matrix: the offsets
of the pixels that a tap of the filter sees are enough, and the very same loop is a matrix product, and each of its two transposes.

A tile of c, 6 rows by 4 vectors, stays in registers for all k; each step loads 4 vectors of b and 6 numbers of a, and does 24 vector
multiply-adds. (Numba's own loops cannot say this: the compiler keeps no array in registers. So the tile is written in LLVM's language.)
Every entry of c adds its k in order, whatever the tile it falls in: the bits depend on no thread count and no tile size.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.simd import INTEGER, VECTOR, WIDE, Vectors, loop, pointers, splat

KMAX = 112  # steps at a time, at most: so many rows of b, of 4 vectors, fit in 32 KiB


def tile(rows, vectors, partial=False):
    """tile(c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j, width, fresh): the sum above, k0 < k1, for `rows` rows from r and
    `vectors` vectors from column j, added to c, or, where fresh, to 0; partial: the last vector ends at column `width`."""

    def codegen(context, builder, signature, args):
        c, a, b, rows_c, rows_a, steps_a, steps_b = pointers(
            context, builder, signature, args, 0, 1, 2, 3, 4, 6, 7
        )
        r, k0, k1, j, width, fresh = args[5], *args[8:]
        v = Vectors(context, builder, signature, 0)
        before = INTEGER((vectors - 1) * v.type.count)
        masks = [None] * (vectors - 1) + [
            v.lanes_below(builder.sub(builder.sub(width, j), before)) if partial else None
        ]

        def number_at(array, index):
            return builder.load(builder.gep(array, [index]))

        def vectors_at(array, index):
            return [
                (v.at(array, builder.add(index, INTEGER(i * v.type.count))), mask)
                for i, mask in enumerate(masks)
            ]

        row = [builder.add(r, INTEGER(i)) for i in range(rows)]
        places = [p for i in row for p in vectors_at(c, builder.add(number_at(rows_c, i), j))]
        lines = [builder.gep(a, [number_at(rows_a, i)]) for i in row]
        start = [builder.select(fresh, ir.Constant(v.type, None), v.load(*p)) for p in places]

        def step(k, sums):
            bs, at, new = (
                [v.load(*p) for p in vectors_at(b, builder.add(number_at(steps_b, k), j))],
                number_at(steps_a, k),
                [],
            )
            for i, line in enumerate(lines):
                broadcast = splat(builder, number_at(line, at), v.type)
                new += [
                    v.multiply_add(broadcast, bs[n], sums[i * vectors + n]) for n in range(vectors)
                ]
            return new

        for value, p in zip(loop(builder, k0, k1, start, step), places, strict=True):
            v.store(value, *p)
        return context.get_dummy_value()

    @intrinsic
    def run(typingctx, c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j, width, fresh):
        return types.void(
            c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j, width, fresh
        ), codegen

    return run


FOUR = 4 if WIDE else 2


def strip(vectors, partial=False):
    """The sum above for rows r0 .. r1 of `vectors` vectors from column j: tiles of 6 rows, then of 2 and of 1."""
    six, two, one = (tile(rows, vectors, partial) for rows in (6, 2, 1))

    @inner()
    def run(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, k0, k1, j, width, fresh):
        r = r0
        while r < r1:
            if r + 6 <= r1:
                six(c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j, width, fresh)
                r += 6
            elif r + 2 <= r1:
                two(c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j, width, fresh)
                r += 2
            else:
                one(c, a, b, rows_c, rows_a, r, steps_a, steps_b, k0, k1, j, width, fresh)
                r += 1

    return run


whole = strip(FOUR)
up_to_one, up_to_two, up_to_three, up_to_four = (
    strip(min(vectors, FOUR), partial=True) for vectors in (1, 2, 3, 4)
)


@external(
    "F[::1], F[::1], F[::1], int64[::1], int64[::1], int64, int64, int64[::1], int64[::1], int64, int64, int64, boolean"
)
def accumulate(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, k0, k1, width, fresh):
    """The sum above for rows r0 .. r1, added to c; or, where fresh, in place of what is in c."""
    size = VECTOR // c.itemsize
    parts = (k1 - k0 + KMAX - 1) // KMAX
    for part in range(parts):
        first, last = k0 + (k1 - k0) * part // parts, k0 + (k1 - k0) * (part + 1) // parts
        j, new = 0, fresh and part == 0
        while j < width:
            left = (width - j + size - 1) // size
            if width - j >= FOUR * size:
                whole(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, first, last, j, width, new)
            elif left == 1:
                up_to_one(
                    c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, first, last, j, width, new
                )
            elif left == 2:
                up_to_two(
                    c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, first, last, j, width, new
                )
            elif left == 3:
                up_to_three(
                    c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, first, last, j, width, new
                )
            else:
                up_to_four(
                    c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, first, last, j, width, new
                )
            j += FOUR * size


# ---- transposing, a square block of registers at a time ------------------------------------------------------------------


def exchange(builder, rows, step):
    """One round of a transposition: rows i and i + step exchange the halves of each 2 step lanes that lie off the diagonal."""
    count, rows = len(rows), list(rows)
    lane = ir.IntType(32)
    for i in range(count):
        if not i & step:
            upper, lower = rows[i], rows[i | step]
            for place, mask in (
                (i, [e if not e & step else count + e - step for e in range(count)]),
                (i | step, [e + step if not e & step else count + e for e in range(count)]),
            ):
                rows[place] = builder.shuffle_vector(
                    upper, lower, ir.Constant(ir.VectorType(lane, count), mask)
                )
    return rows


def transpose_block(partial):
    """block(target, rows_t, j, J, source, rows_s, i, I): target[rows_t[j + b] + i + a] = source[rows_s[i + a] + j + b] for a, b < lanes;
    partial: only for i + a < I and j + b < J."""

    def codegen(context, builder, signature, args):
        target, rows_t, source, rows_s = pointers(context, builder, signature, args, 0, 1, 4, 5)
        j, J, i, I = args[2], args[3], args[6], args[7]
        v = Vectors(context, builder, signature, 0)

        def places(array, rows, first, end, column, columns):
            """Of each row its vector and its mask, which is empty for rows there are none of."""
            mask = v.lanes_below(builder.sub(columns, column)) if partial else None
            for n in range(v.type.count):
                row, row_mask = builder.add(first, INTEGER(n)), mask
                if partial:
                    there = builder.icmp_signed("<", row, end)
                    row = builder.select(there, row, first)
                    row_mask = builder.and_(mask, splat(builder, there, mask.type))
                yield (
                    v.at(array, builder.add(builder.load(builder.gep(rows, [row])), column)),
                    row_mask,
                )

        block = [v.load(*place) for place in places(source, rows_s, i, I, j, J)]
        step = 1
        while step < v.type.count:
            block, step = exchange(builder, block, step), 2 * step
        for value, place in zip(block, places(target, rows_t, j, J, i, I), strict=True):
            v.store(value, *place)
        return context.get_dummy_value()

    @intrinsic
    def run(typingctx, target, rows_t, j, J, source, rows_s, i, I):
        return types.void(target, rows_t, j, J, source, rows_s, i, I), codegen

    return run


whole_block, partial_block = transpose_block(partial=False), transpose_block(partial=True)


@external("F[::1], int64[::1], F[::1], int64[::1]")
def transpose(target, rows_t, source, rows_s):
    """target[rows_t[j] + i] = source[rows_s[i] + j] for all rows of both: flat arrays whose numbers are neighbours.

    i inside: whole cache lines of the target, one after the other.
    """
    size = VECTOR // target.itemsize
    for j in range(0, len(rows_t), size):
        for i in range(0, len(rows_s), size):
            one_block(target, rows_t, j, source, rows_s, i)


@external("F[::1], int64[::1], F[::1], int64[::1]")
def transpose_from_afar(target, rows_t, source, rows_s):
    """The same for a source that is in no cache yet. j inside: a few rows at a time from beginning to end, as memory likes it."""
    size = VECTOR // target.itemsize
    for i in range(0, len(rows_s), size):
        for j in range(0, len(rows_t), size):
            one_block(target, rows_t, j, source, rows_s, i)


@inner()
def one_block(target, rows_t, j, source, rows_s, i):
    size, I, J = VECTOR // target.itemsize, len(rows_s), len(rows_t)
    if i + size <= I and j + size <= J:
        whole_block(target, rows_t, j, J, source, rows_s, i, I)
    else:
        partial_block(target, rows_t, j, J, source, rows_s, i, I)
