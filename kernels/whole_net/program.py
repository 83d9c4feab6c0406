"""A chain as a table of integers that one compiled function walks through: what each operation is, and where its numbers lie.

Values and adjoints of one task lie in one array, `work`, at offsets that are the same for every task. Two layouts:

    kept    every value and every adjoint has a place of its own: what Hessian-vector products need of a gradient
    lean    the adjoint of what batch-norm or an activation takes in replaces it: for gradients that nobody differentiates further,
            and for tangents, of which nothing is kept
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from refmaml.kernels.conv2d.gather_indices import BACKWARD_W, BACKWARD_X, FORWARD, sights
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
CONVOLUTION, MATRIX, NORM_ACT_POOL, ACTIVATE, MAX_POOL, AVERAGE, FLATTEN = range(len(KINDS))
# Columns of the table. X Y: where the values begin that an operation takes and gives (x ABSENT: the chain's own input); DX DY: their
# adjoints; S: 1 / sqrt(var + eps); PLACES: winners; WEIGHT, BIAS: parameters (a batch-norm's gamma and beta);
# LISTS: those of windows, or, + what, of a product, and last those of its filters' orders; SILENT: 1 where a batch-norm takes a bias away.
(
    KIND,
    X,
    Y,
    DX,
    DY,
    C,
    H,
    W,
    O,
    HO,
    WO,
    WEIGHT,
    BIAS,
    KH,
    KW,
    SH,
    SW,
    S,
    PLACES,
    SILENT,
    FUNCTION,
    LISTS,
) = range(22)
ORDERS = 3
COLUMNS = LISTS + ORDERS + 1


@dataclass(frozen=True)
class Program:
    """table (operations, COLUMNS), reals (operations, 2): eps and slope; lists: of all operations. Sizes, in numbers: of a task's work and
    places; macs: multiply-adds of one forward pass of one task."""

    table: np.ndarray
    reals: np.ndarray
    lists: np.ndarray
    work: int
    places: int
    macs: int


@lru_cache(maxsize=64)
def program(operations, N, lean):
    """The program of a chain for N images a task."""
    table = np.full((len(operations), COLUMNS), ABSENT, np.int64)
    reals, lists = np.zeros((len(operations), 2)), []
    places, macs, listed = 0, 0, 0
    for row, real, op, after in zip(table, reals, operations, [*operations[1:], None], strict=True):
        row[KIND] = KINDS.index(type(op))
        describe(row, real, op)
        if isinstance(op, PRODUCTS):
            row[SILENT], macs = (
                isinstance(after, NormActPool),
                macs + N * int(prod(row[[HO, WO, O, C, KH, KW]])),
            )
        for column, block in enumerate(blocks(op, N)):
            row[LISTS + column] = listed
            lists += [[len(block)], block]
            listed += 1 + len(block)
        if isinstance(op, MaxPool) or (isinstance(op, NormActPool) and op.window != (1, 1)):
            row[PLACES], places = places, places + N * op.Ho * op.Wo * op.C
    work = lay_out(table, operations, N, lean)
    return Program(table, reals, np.concatenate(lists).astype(np.int64), work, places, macs)


def blocks(op, N):
    """The lists of an operation: of a product's three and of its filters' orders, or of windows. (dw' = x' dy is dw = dy' x of the matrix
    product the other way round.)"""
    if isinstance(op, Matrix):
        return [
            offsets(N, op.C, op.O),
            offsets(N, op.C, op.O),
            offsets(N, op.O, op.C),
            orders(op.O, op.C, 1),
        ]
    if isinstance(op, Convolution):
        shape = (N, op.C, op.H, op.W, op.O, op.Ho, op.Wo, op.kernel, op.stride, op.start)
        return [
            *(sights(what, *shape) for what in (FORWARD, BACKWARD_X, BACKWARD_W)),
            orders(op.O, op.C, prod(op.kernel)),
        ]
    return (
        [window_lists(N, op.C, op.H, op.W, op.Ho, op.Wo, op.window)]
        if isinstance(op, NormActPool)
        else []
    )


def orders(O, C, taps):
    """Where rows of filters begin: (c, tap) of O numbers, in the order (tap, c); o of C taps numbers; o, and c, of one tap's numbers."""
    c, tap, o = np.arange(C)[:, None], np.arange(taps), np.arange(O)
    return np.concatenate([((tap * C + c) * O).ravel(), o * C * taps, o * C, c.ravel() * O])


def describe(row, real, op):
    """Extents, windows and parameters."""
    if isinstance(op, Activate):
        row[[C, H, W, O, HO, WO]] = op.size, 1, 1, op.size, 1, 1
        row[FUNCTION], real[1] = op.function, op.slope
    elif isinstance(op, Matrix):
        row[[C, H, W, O, HO, WO, KH, KW, WEIGHT, BIAS]] = (
            op.C,
            1,
            1,
            op.O,
            1,
            1,
            1,
            1,
            op.weight,
            op.bias,
        )
    elif isinstance(op, Flatten):
        row[[C, H, W, O, HO, WO]] = op.C, op.H, op.W, op.C * op.H * op.W, 1, 1
    else:
        row[[C, H, W, O, HO, WO]] = (
            op.C,
            op.H,
            op.W,
            op.O if isinstance(op, Convolution) else op.C,
            op.Ho,
            op.Wo,
        )
    if isinstance(op, Convolution):
        row[[KH, KW, SH, SW, WEIGHT, BIAS]] = *op.kernel, *op.stride, op.weight, op.bias
    elif isinstance(op, NormActPool):
        row[[KH, KW, WEIGHT, BIAS]], real[:] = (*op.window, op.gamma, op.beta), (op.eps, op.slope)
    elif isinstance(op, MaxPool | Average):
        row[[KH, KW, SH, SW]] = *op.window, *op.stride


def whole_lines(size):
    """So many numbers that what comes behind them begins with a cache line again, in either precision."""
    return -(-size // 16) * 16


def lay_out(table, operations, N, lean):
    """Gives every value and adjoint its place; how many numbers that is in all."""
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
    """Whether a chain can run as one kernel: it begins with a product (or Flatten, then one), and batch-norms and activations stand behind
    products, whose values they may replace."""
    behind = list(zip(operations, operations[1:], strict=False))
    first = next((op for op in operations if not isinstance(op, Flatten)), None)
    return (
        isinstance(first, PRODUCTS)
        and isinstance(operations[-1], PRODUCTS)
        and all(
            isinstance(before, PRODUCTS)
            for before, op in behind
            if isinstance(op, NormActPool | Activate)
        )
        and all(
            isinstance(op, PRODUCTS) or not isinstance(before, Flatten) for before, op in behind
        )
    )
