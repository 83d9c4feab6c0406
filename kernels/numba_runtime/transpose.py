"""Transposition of a matrix whose rows lie anywhere, a square block at a time.

Square blocks are transposed in registers, as many rows as a vector has lanes.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.simd import INTEGER, Vectors, lanes_of, pointers, splat


def exchange(builder, rows, step):
    """One round of a transposition.

    Rows i and i + step exchange those halves of each 2 step lanes that are off the
    diagonal.
    """
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
    """block(target, rows_t, j, J, source, rows_s, i, I):

        target[rows_t[j + b] + i + a] = source[rows_s[i + a] + j + b]     a, b < lanes

    partial: only for i + a < I and j + b < J.
    """

    def codegen(context, builder, signature, args):
        target, rows_t, source, rows_s = pointers(context, builder, signature, args, 0, 1, 4, 5)
        j, J, i, I = args[2], args[3], args[6], args[7]
        v = Vectors(context, builder, signature, 0)

        def vectors_of(array, rows, first, end, column, columns):
            """The address and mask of each row; masks are empty past the last row."""
            mask = v.lanes_below(builder.sub(columns, column)) if partial else None
            for n in range(v.type.count):
                row, row_mask = builder.add(first, INTEGER(n)), mask
                if partial:
                    exists = builder.icmp_signed("<", row, end)
                    row = builder.select(exists, row, first)
                    row_mask = builder.and_(mask, splat(builder, exists, mask.type))
                start = builder.load(builder.gep(rows, [row]))
                yield v.at(array, builder.add(start, column)), row_mask

        block = [v.load(*place) for place in vectors_of(source, rows_s, i, I, j, J)]
        step = 1
        while step < v.type.count:
            block, step = exchange(builder, block, step), 2 * step
        for value, place in zip(block, vectors_of(target, rows_t, j, J, i, I), strict=True):
            v.store(value, *place)
        return context.get_dummy_value()

    @intrinsic
    def run(typingctx, target, rows_t, j, J, source, rows_s, i, I):
        return types.void(target, rows_t, j, J, source, rows_s, i, I), codegen

    return run


whole_block, partial_block = transpose_block(partial=False), transpose_block(partial=True)


@external("F[::1], int64[::1], F[::1], int64[::1]", allocates=False)
def transpose(target, rows_t, source, rows_s):
    """target[rows_t[j] + i] = source[rows_s[i] + j] for all i and j; flat arrays.

    i is the inner loop: it writes whole cache lines of the target one after another.
    """
    size = lanes_of(target)
    for j in range(0, len(rows_t), size):
        for i in range(0, len(rows_s), size):
            one_block(target, rows_t, j, source, rows_s, i)


@external("F[::1], int64[::1], F[::1], int64[::1]", allocates=False)
def transpose_uncached(target, rows_t, source, rows_s):
    """The same for a source that is in no cache yet.

    j is the inner loop: it reads a few rows from beginning to end, as memory is
    fastest.
    """
    size = lanes_of(target)
    for i in range(0, len(rows_s), size):
        for j in range(0, len(rows_t), size):
            one_block(target, rows_t, j, source, rows_s, i)


@inner()
def one_block(target, rows_t, j, source, rows_s, i):
    size, I, J = lanes_of(target), len(rows_s), len(rows_t)
    if i + size <= I and j + size <= J:
        whole_block(target, rows_t, j, J, source, rows_s, i, I)
    else:
        partial_block(target, rows_t, j, J, source, rows_s, i, I)
