"""A net as a table of integers, which the compiled passes read row by row.

A row of the table says what an operation is and where its values are. The values and
adjoints of one task are in one array, `work`, at offsets that are the same for every
task. There are two memory plans:

    full    every value and every adjoint has memory of its own; Hessian-vector products
            need both after the gradient
    lean    the adjoint of the input of a batch-norm or an activation overwrites that
            input; for gradients that are not differentiated further, and for tangents,
            which nothing needs later
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from refmaml.kernels.conv2d.gather_indices import BACKWARD_W, BACKWARD_X, FORWARD, gather_indices
from refmaml.kernels.linear.cpu import offsets
from refmaml.kernels.norm_act_pool.windows import window_lists
from refmaml.kernels.whole_net.operations import (
    ABSENT,
    Activate,
    Average,
    Convolution,
    Flatten,
    Matrix,
    MaxPool,
    NormActPool,
)

KINDS = (Convolution, Matrix, NormActPool, Activate, MaxPool, Average, Flatten)
PRODUCTS = Convolution | Matrix
MAX_WINDOW = np.iinfo(np.int16).max  # pixels: the winners of a whole net are int16
CONVOLUTION, MATRIX, NORM_ACT_POOL, ACTIVATE, MAX_POOL, AVERAGE, FLATTEN = range(len(KINDS))

# The columns of the table.
#   KIND          an index into KINDS
# X Y DX DY     where in `work` input, output and their adjoints begin; X is ABSENT for
#                 the first operation, whose input is the input of the net
#   C .. WO       extents of input (C, H, W) and output (O, Ho, Wo)
#   WEIGHT BIAS   where the parameters begin (of a batch-norm: gamma and beta)
#   KH .. SW      window and stride
#   S             where 1 / sqrt(var + eps) of a batch-norm begins in `work`
#   WINNERS       where the winners of max-pooling begin
#   BIAS_CANCELS  1 if a batch-norm follows, which subtracts the bias again
#   FUNCTION      the function of an Activate
# LISTS         where the offset lists begin in `lists`: one of windows; or of a product
#                 FORWARD, BACKWARD_X and BACKWARD_W, then FILTER_ORDERS
# fmt: off
(KIND, X, Y, DX, DY, C, H, W, O, HO, WO, WEIGHT, BIAS, KH, KW, SH, SW, S, WINNERS,
 BIAS_CANCELS, FUNCTION, LISTS) = range(22)
# fmt: on
FILTER_ORDERS = 3
COLUMNS = LISTS + FILTER_ORDERS + 1


@dataclass(frozen=True)
class Program:
    """A net for a number of images per task.

    table    (operations, COLUMNS)
    reals    (operations, 2): eps and slope
    lists    the offset lists of all operations, one after another
    work     numbers of values and adjoints of a task
    winners  winners of max-pooling of a task
    macs     multiply-adds of one forward pass of one task
    """

    table: np.ndarray
    reals: np.ndarray
    lists: np.ndarray
    work: int
    winners: int
    macs: int


@lru_cache(maxsize=64)
def program(operations, N, lean):
    """The Program of a net for N images per task."""
    table = np.full((len(operations), COLUMNS), ABSENT, np.int64)
    reals, lists = np.zeros((len(operations), 2)), []
    winners, macs, listed = 0, 0, 0
    for row, real, op, after in zip(table, reals, operations, [*operations[1:], None], strict=True):
        row[KIND] = KINDS.index(type(op))
        describe(row, real, op)
        if isinstance(op, PRODUCTS):
            row[BIAS_CANCELS] = isinstance(after, NormActPool)
            macs += N * int(prod(row[[HO, WO, O, C, KH, KW]]))
        for column, block in enumerate(offset_lists(op, N)):
            row[LISTS + column] = listed
            lists += [[len(block)], block]
            listed += 1 + len(block)
        if isinstance(op, MaxPool) or (isinstance(op, NormActPool) and op.window != (1, 1)):
            row[WINNERS], winners = winners, winners + N * op.Ho * op.Wo * op.C
    work = plan_memory(table, operations, N, lean)
    return Program(table, reals, np.concatenate(lists).astype(np.int64), work, winners, macs)


def offset_lists(op, N):
    """The lists of an operation, in the order of the columns from LISTS on.

    (A matrix product takes dw = dy' x as dw' = x' dy, with the roles of O and C
    exchanged.)
    """
    if isinstance(op, Matrix):
        forward = offsets(N, op.C, op.O)
        return [forward, forward, offsets(N, op.O, op.C), filter_orders(op.O, op.C, 1)]
    if isinstance(op, Convolution):
        shape = (N, op.C, op.H, op.W, op.O, op.Ho, op.Wo)
        windows = op.kernel, op.stride, op.start, op.dilation
        return [
            *(gather_indices(what, *shape, *windows) for what in (FORWARD, BACKWARD_X, BACKWARD_W)),
            filter_orders(op.O, op.C, prod(op.kernel)),
        ]
    if isinstance(op, NormActPool):
        return [window_lists(N, op.C, op.H, op.W, op.Ho, op.Wo, op.window)]
    return []


def filter_orders(O, C, taps):
    """Where rows of filters begin, four lists one after another (filter_order.py):

    (tap, c) of O numbers, listed in the order (c, tap); o of C taps numbers; o of one
    tap, C numbers; c of one tap, O numbers.
    """
    c, tap, o = np.arange(C)[:, None], np.arange(taps), np.arange(O)
    return np.concatenate([((tap * C + c) * O).ravel(), o * C * taps, o * C, c.ravel() * O])


def describe(row, real, op):
    """Fills in extents, windows and the positions of parameters."""
    row[[C, H, W, O, HO, WO]] = extents(op)
    if isinstance(op, Activate):
        row[FUNCTION], real[1] = op.function, op.slope
    elif isinstance(op, Matrix):
        row[[KH, KW, WEIGHT, BIAS]] = 1, 1, op.weight, op.bias
    elif isinstance(op, Convolution):
        row[[KH, KW, SH, SW, WEIGHT, BIAS]] = *op.kernel, *op.stride, op.weight, op.bias
    elif isinstance(op, NormActPool):
        row[[KH, KW, WEIGHT, BIAS]], real[:] = (*op.window, op.gamma, op.beta), (op.eps, op.slope)
    elif isinstance(op, MaxPool | Average):
        row[[KH, KW, SH, SW]] = *op.window, *op.stride


def extents(op):
    """(C, H, W) of the input and (O, Ho, Wo) of the output."""
    if isinstance(op, Activate):
        return op.size, 1, 1, op.size, 1, 1
    if isinstance(op, Matrix):
        return op.C, 1, 1, op.O, 1, 1
    if isinstance(op, Flatten):
        return op.C, op.H, op.W, op.C * op.H * op.W, 1, 1
    O = op.O if isinstance(op, Convolution) else op.C
    return op.C, op.H, op.W, O, op.Ho, op.Wo


def whole_lines(size):
    """`size` rounded up so that the next array begins at a cache line,
    in float32 too.
    """
    return -(-size // 16) * 16


def plan_memory(table, operations, N, lean):
    """Gives every value and adjoint an offset. Returns how many numbers
    that is in all.
    """
    end = 0
    for i, (row, op) in enumerate(zip(table, operations, strict=True)):
        size = N * row[O] * row[HO] * row[WO]
        row[Y], end = end, end + whole_lines(size)
        after = operations[i + 1] if i + 1 < len(operations) else None
        if lean and isinstance(after, NormActPool | Activate):
            row[DY] = row[Y]
        else:
            row[DY], end = end, end + whole_lines(size)
        if i > 0:
            row[X], row[DX] = table[i - 1, Y], table[i - 1, DY]
        if isinstance(op, NormActPool):
            row[S], end = end, end + whole_lines(op.C)
    return int(end)


def supported(operations):
    """Whether one kernel can run these operations.

    The first is a product, or Flatten and then a product; the last is a product.
    Batch-norms and activations follow products, whose values they may overwrite.
    Flatten is followed by a product. Windows of max-pooling have at most MAX_WINDOW
    pixels.
    """
    pairs = list(zip(operations, operations[1:], strict=False))
    first = next((op for op in operations if not isinstance(op, Flatten)), None)
    return (
        all(
            prod(op.window) <= MAX_WINDOW
            for op in operations
            if isinstance(op, MaxPool | NormActPool)
        )
        and isinstance(first, PRODUCTS)
        and isinstance(operations[-1], PRODUCTS)
        and all(
            isinstance(before, PRODUCTS)
            for before, op in pairs
            if isinstance(op, NormActPool | Activate)
        )
        and all(isinstance(op, PRODUCTS) or not isinstance(before, Flatten) for before, op in pairs)
    )
