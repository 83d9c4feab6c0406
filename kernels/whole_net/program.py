"""A net as a table of integers, which the compiled passes read row by row.

A row of the table says what an operation is and where its values are. graph.py has the
order of the rows. The values and adjoints of one task are in one array, `work`, at
offsets that are the same for every task. There are two memory plans (memory_plan.py):

    full    every value and every adjoint has memory of its own; Hessian-vector products
            need both after the gradient
    lean    the adjoint of the input of a norm or an activation overwrites that input;
            for gradients that are not differentiated further, and for tangents, which
            nothing needs later
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from refmaml.kernels.activation.functions import LEAKY
from refmaml.kernels.conv2d.algorithms import product_block
from refmaml.kernels.conv2d.gather_indices import BACKWARD_W, BACKWARD_X, FORWARD
from refmaml.kernels.group_norm.task_passes import row_lists
from refmaml.kernels.linear.cpu import offsets
from refmaml.kernels.norm_act_pool.windows import window_lists
from refmaml.kernels.whole_net.columns import (
    BIAS,
    BIAS_CANCELS,
    COLUMNS,
    CONSTANT,
    FUNCTION,
    GROUPS,
    HO,
    KH,
    KIND,
    KINDS,
    KW,
    LISTS,
    SH,
    SW,
    WEIGHT,
    WINNERS,
    WO,
    C,
    H,
    O,
    W,
)  # fmt: skip
from refmaml.kernels.whole_net.graph import (
    NORMS,
    PRODUCTS,
    is_constant,
    nodes_of,
    readers,
    value_is_free,
)
from refmaml.kernels.whole_net.grouped import grouped_indices
from refmaml.kernels.whole_net.memory_plan import plan_memory
from refmaml.kernels.whole_net.operations import (
    ABSENT,
    Activate,
    Average,
    Convolution,
    Flatten,
    Fork,
    GroupNorm,
    Matrix,
    MaxPool,
    NormActPool,
    Sum,
)

MAX_WINDOW = np.iinfo(np.int16).max  # pixels: the winners of a whole net are int16


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


def program(operations, N, lean):
    """The Program of a net for N images per task."""
    nodes = tuple(nodes_of(operations))
    return program_of(nodes, tuple(type(node.op) for node in nodes), N, lean)


@lru_cache(maxsize=64)
def program_of(nodes, kinds, N, lean):
    """`program` of nodes. kinds: their types, as tuples of equal numbers are equal."""
    table = np.full((len(nodes), COLUMNS), ABSENT, np.int64)
    reals, lists = np.zeros((len(nodes), 2)), []
    winners, macs, listed = 0, 0, 0
    for row, real, (op, *_), reader in zip(table, reals, nodes, readers(nodes), strict=True):
        describe(row, real, op)
        if isinstance(op, PRODUCTS):
            row[BIAS_CANCELS] = reader is not None and isinstance(reader.op, NormActPool)
            macs += N * int(prod(row[[HO, WO, O, C, KH, KW]])) // int(row[GROUPS])
        for column, block in enumerate(offset_lists(op, N)):
            row[LISTS + column] = listed
            lists += [[len(block)], block]
            listed += 1 + len(block)
        if isinstance(op, MaxPool) or (isinstance(op, NormActPool) and op.window != (1, 1)):
            row[WINNERS], winners = winners, winners + N * op.Ho * op.Wo * op.C
    table[:, CONSTANT] = [node.constant for node in nodes]
    work = plan_memory(table, nodes, N, lean)
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
        return convolution_lists(op, N)
    if isinstance(op, NormActPool):
        return [window_lists(N, op.C, op.H, op.W, op.Ho, op.Wo, op.window)]
    if isinstance(op, GroupNorm):
        A = op.H * op.W if op.by_position else 1
        rows = row_lists(op.groups, op.C, op.H * op.W, A)
        return [rows, rows[:0], rows[:0], filter_orders(op.C, A, 1)]
    return []


def convolution_lists(op, N):
    """`offset_lists` of a convolution, with groups or without."""
    shape = (N, op.C, op.H, op.W, op.O, op.Ho, op.Wo)
    windows, products = (op.kernel, op.stride, op.start, op.dilation), (FORWARD, BACKWARD_X)
    if op.groups == 1:
        blocks = [product_block(what, *shape, *windows) for what in (*products, BACKWARD_W)]
    else:
        blocks = [
            grouped_indices(what, op.groups, *shape, *windows) for what in (*products, BACKWARD_W)
        ]
    return [*blocks, filter_orders(op.O // op.groups, op.C // op.groups, prod(op.kernel))]


def filter_orders(O, C, taps):
    """Where rows of filters begin, four lists one after another (filter_order.py):

    (tap, c) of O numbers, listed in the order (c, tap); o of C taps numbers; o of one
    tap, C numbers; c of one tap, O numbers.
    """
    c, tap, o = np.arange(C)[:, None], np.arange(taps), np.arange(O)
    return np.concatenate([((tap * C + c) * O).ravel(), o * C * taps, o * C, c.ravel() * O])


def describe(row, real, op):
    """Fills in extents, windows and the positions of parameters."""
    row[KIND], row[GROUPS] = KINDS.index(type(op)), 1
    row[[C, H, W, O, HO, WO]] = extents(op)
    if isinstance(op, Activate):
        row[FUNCTION], real[1] = op.function, op.slope
    elif isinstance(op, Matrix):
        row[[KH, KW, WEIGHT, BIAS]] = 1, 1, op.weight, op.bias
    elif isinstance(op, Convolution):
        row[[KH, KW, SH, SW, WEIGHT, BIAS]] = *op.kernel, *op.stride, op.weight, op.bias
        row[GROUPS] = op.groups
    elif isinstance(op, NormActPool):
        row[[KH, KW, WEIGHT, BIAS]], real[:] = (*op.window, op.gamma, op.beta), (op.eps, op.slope)
    elif isinstance(op, GroupNorm):
        row[[KH, GROUPS]] = op.H * op.W if op.by_position else 1, op.groups
        row[[WEIGHT, BIAS]], real[:] = (op.gamma, op.beta), (op.eps, op.slope)
    elif isinstance(op, MaxPool | Average):
        row[[KH, KW, SH, SW]] = *op.window, *op.stride


def extents(op):
    """(C, H, W) of the input and (O, Ho, Wo) of the output."""
    if isinstance(op, Activate | Sum | Fork):
        return op.size, 1, 1, op.size, 1, 1
    if isinstance(op, Matrix):
        return op.C, 1, 1, op.O, 1, 1
    if isinstance(op, Flatten):
        return op.C, op.H, op.W, op.C * op.H * op.W, 1, 1
    if isinstance(op, GroupNorm):
        return op.C, op.H, op.W, op.C, op.H, op.W
    O = op.O if isinstance(op, Convolution) else op.C
    return op.C, op.H, op.W, O, op.Ho, op.Wo


def supported(operations):
    """Whether one kernel can run these operations.

    The last is a product. A product, perhaps behind a Flatten, is the first to read the
    input of the net. Norms and activations follow an operation whose value nothing else
    needs, as they may overwrite it: a product, a sum, or a norm without an activation.
    Flatten is followed by a product or a sum. Windows of max-pooling have at most
    MAX_WINDOW pixels. The branch of a Residual has an operation.
    """
    nodes = nodes_of(operations)
    return isinstance(nodes[-1].op, PRODUCTS) and all(runs(nodes, node) for node in nodes)


def runs(nodes, node):
    """Whether a node can run where it is."""
    op, before = node.op, None if node.source == ABSENT else nodes[node.source].op
    if isinstance(op, MaxPool | NormActPool) and prod(op.window) > MAX_WINDOW:
        return False
    if isinstance(op, Sum):
        return not is_constant(nodes, node.source) and not isinstance(before, Fork)
    if isinstance(before, Flatten):
        return isinstance(op, PRODUCTS | Fork)
    if node.constant:
        return isinstance(op, PRODUCTS | Flatten)
    if isinstance(op, NORMS):
        copied = isinstance(before, Activate) and (before.function, before.slope) == (LEAKY, 1)
        return value_is_free(before) or copied
    return not isinstance(op, Activate) or value_is_free(before) or isinstance(before, Fork)
