"""The one inner loop of all matrix products on the CPU: sums of outer products.

    c[rows_c[r] + j]  +=  sum_{k0 <= k < k1}  a[rows_a[r] + steps_a[k]] * b[steps_b[k] +
                      j]

for 0 <= j < width. a, b and c are flat arrays; the lists of offsets say where a row or
a column begins. So a convolution needs no patch matrix: the offsets of the pixels that
a tap of the filter sees are enough. The same loop is a matrix product and each of its
two transposes.

A tile of c, 6 rows by 4 vectors, stays in registers for all k. Each step loads 4
vectors of b and 6 numbers of a, and does 24 vector multiply-adds. Numba cannot express
this, because it keeps no array in registers, so the tile is written in LLVM's
intermediate representation. Every element of c adds its terms in the order of k,
whichever tile it is in: the bits depend neither on the number of threads nor on the
size of the tiles.

Rows that are left over go into tiles of 4 rows. Such a tile may end beyond the last
row: it then computes the last row several times, and stores the same numbers there. A
step of fewer rows would not be faster, as each multiply-add waits for the one before.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.simd import (
    INTEGER,
    WIDE,
    Vectors,
    lanes_of,
    loop,
    pointers,
    splat,
)

KMAX = 112  # the most steps at a time: so many rows of b, of 4 vectors, fit in 32 KiB


def tile_code(rows, vectors, partial, limited):
    """The code of a tile."""

    def codegen(context, builder, signature, args):
        c, a, b, rows_c, rows_a, steps_a, steps_b = pointers(
            context, builder, signature, args, 0, 1, 2, 3, 4, 7, 8
        )
        r, end, k0, k1, j, width, overwrite = args[5], args[6], *args[9:]
        v = Vectors(context, builder, signature, 0)
        left = builder.sub(builder.sub(width, j), INTEGER((vectors - 1) * v.type.count))
        last = v.lanes_below(left) if partial else None
        masks = [None] * (vectors - 1) + [last]

        def number_at(array, index):
            return builder.load(builder.gep(array, [index]))

        def vectors_at(array, index):
            return [
                (v.at(array, builder.add(index, INTEGER(i * v.type.count))), mask)
                for i, mask in enumerate(masks)
            ]

        def row_at(i):
            """Row r + i; the last row if there are fewer."""
            place, last_row = builder.add(r, INTEGER(i)), builder.sub(end, INTEGER(1))
            if not limited:
                return place
            return builder.select(builder.icmp_signed("<", place, end), place, last_row)

        row = [row_at(i) for i in range(rows)]
        places = [p for i in row for p in vectors_at(c, builder.add(number_at(rows_c, i), j))]
        lines = [builder.gep(a, [number_at(rows_a, i)]) for i in row]
        start = [builder.select(overwrite, ir.Constant(v.type, None), v.load(*p)) for p in places]

        def step(k, sums):
            bs = [v.load(*p) for p in vectors_at(b, builder.add(number_at(steps_b, k), j))]
            at, new = number_at(steps_a, k), []
            for i, line in enumerate(lines):
                broadcast = splat(builder, number_at(line, at), v.type)
                new += [
                    v.multiply_add(broadcast, bs[n], sums[i * vectors + n]) for n in range(vectors)
                ]
            return new

        sums = loop(builder, k0, k1, start, step)

        def store(masked):
            for value, (address, mask) in zip(sums, places, strict=True):
                v.store(value, address, mask if masked else None)

        if partial:  # masked stores are slow on some processors, and are seldom needed
            with builder.if_else(builder.icmp_signed("<", left, INTEGER(v.type.count))) as (
                masked,
                plain,
            ):
                with masked:
                    store(masked=True)
                with plain:
                    store(masked=False)
        else:
            store(masked=False)
        return context.get_dummy_value()

    return codegen


def tile(rows, vectors, partial=False, limited=False):
    """tile(c, a, b, rows_c, rows_a, r, end, steps_a, steps_b, k0, k1, j, width, ...):

    the sum above, k0 < k1, for `rows` rows from r and `vectors` vectors from column j,
    added to c, or, if `overwrite`, the last argument, to 0. partial: the last vector
    ends at column `width`. limited: there may be fewer rows, r < end.
    """
    codegen = tile_code(rows, vectors, partial, limited)

    @intrinsic
    def run(
        typingctx, c, a, b, rows_c, rows_a, r, end, steps_a, steps_b, k0, k1, j, width, overwrite
    ):
        return types.void(
            c, a, b, rows_c, rows_a, r, end, steps_a, steps_b, k0, k1, j, width, overwrite
        ), codegen

    return run


# With 16 registers of 32 bytes, a tile is 2 vectors wide.
FOUR = 4 if WIDE else 2


def strip(vectors, partial=False):
    """The sum above for rows r0 .. r1 of `vectors` vectors from column j.

    Tiles have 6 rows, then 4 or what is left of them.
    """
    six, four = tile(6, vectors, partial), tile(4, vectors, partial, limited=True)

    @inner()
    def run(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, k0, k1, j, width, overwrite):
        r = r0
        while r < r1:
            if r + 6 <= r1:
                six(c, a, b, rows_c, rows_a, r, r1, steps_a, steps_b, k0, k1, j, width, overwrite)
                r += 6
            else:
                four(c, a, b, rows_c, rows_a, r, r1, steps_a, steps_b, k0, k1, j, width, overwrite)
                r += 4

    return run


whole = strip(FOUR)
# A strip is compiled once, however many names it has: left is at most FOUR.
strips = [strip(vectors, partial=True) for vectors in range(1, FOUR + 1)]
up_to_one, up_to_two, up_to_three, up_to_four = (
    strips[min(vectors, FOUR) - 1] for vectors in (1, 2, 3, 4)
)


# fmt: off
@external("F[::1], F[::1], F[::1], int64[::1], int64[::1], int64, int64, int64[::1], int64[::1], "
          "int64, int64, int64, boolean", allocates=False)
def accumulate(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, k0, k1, width, overwrite):
    """The sum above for rows r0 .. r1, added to c; or, if overwrite, written to c."""
    size, zero = lanes_of(c), r0 - r0  # a constant 0 would be a type of its own
    parts, hi = (k1 - k0 + KMAX - 1) // KMAX, k0
    for part in range(parts):
        lo, hi = hi, k1 if part == parts - 1 else k0 + (k1 - k0) * (part + 1) // parts
        j, new = zero, overwrite and part == 0
        while j < width:
            left = (width - j + size - 1) // size
            if width - j >= FOUR * size:
                whole(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, lo, hi, j, width, new)
            elif left == 1:
                up_to_one(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, lo, hi, j, width, new)
            elif left == 2:
                up_to_two(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, lo, hi, j, width, new)
            elif left == 3:
                up_to_three(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, lo, hi, j, width,
                            new)
            else:
                up_to_four(c, a, b, rows_c, rows_a, r0, r1, steps_a, steps_b, lo, hi, j, width,
                           new)
            j += FOUR * size
# fmt: on
