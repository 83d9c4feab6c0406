"""Group norm in a whole net: where its numbers are, and its four passes.

group_norm/task_passes.py computes them. In product order a gamma or beta with a number
for each position is (A, C), as images are; in a parameter vector it is (C, A).
"""

import numpy as np

from refmaml.kernels.group_norm import task_passes
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.numba_runtime.transpose import transpose
from refmaml.kernels.whole_net import columns as at


@inlined()
def list_of(row, lists):
    """The block of task_passes.py."""
    start = row[at.LISTS]
    return lists[start + 1 : start + 1 + lists[start]]


@inner()
def parameters_of(w, start, row, absent):
    """gamma or beta; the number `absent` everywhere if there is none."""
    count = row[at.C] * row[at.KH]
    return np.full(count, absent, w.dtype) if start < 0 else w[start : start + count]


@inner()
def gradients_of(grad, start, row):
    """Where a gradient is written; a scratch array if there is no such parameter."""
    count = row[at.C] * row[at.KH]
    return np.empty(count, grad.dtype) if start < 0 else grad[start : start + count]


@inlined()
def deviations_of(row, work, N):
    """s = 1 / sqrt(var + eps) (N, G), or its tangent."""
    return work[row[at.S] : row[at.S] + N * row[at.GROUPS]]


# ---- the passes ----------------------------------------------------------------------

# The types of the arguments; F is the precision.
ROW, LISTS = "int64[::1]", "int64[::1], int64"  # a row; lists, N


def flat(count):
    """The types of so many flat arrays."""
    return ", ".join(["F[::1]"] * count)


@external(f"{ROW}, {LISTS}, {flat(4)}, F, F", on_demand=True)
def forward(row, lists, N, y, x, work, w, eps, slope):
    gamma = parameters_of(w, row[at.WEIGHT], row, 1)
    beta = parameters_of(w, row[at.BIAS], row, 0)
    s, block = deviations_of(row, work, N), list_of(row, lists)
    task_passes.forward(y, x, s, gamma, beta, eps, slope, block, N)


@external(f"{ROW}, {LISTS}, {flat(7)}, F", on_demand=True)
def backward(row, lists, N, dx, dy, y, xh, work, w, grad, slope):
    gamma = parameters_of(w, row[at.WEIGHT], row, 1)
    dgamma, dbeta = (gradients_of(grad, row[at.WEIGHT], row), gradients_of(grad, row[at.BIAS], row))
    s, block = deviations_of(row, work, N), list_of(row, lists)
    task_passes.backward(dx, dgamma, dbeta, dy, y, xh, s, gamma, slope, block, N)


@external(f"{ROW}, {ROW}, {LISTS}, {flat(8)}, F", on_demand=True)
def r_forward(row, rrow, lists, N, ry, rx, y, xh, work, rwork, w, v, slope):
    gamma = parameters_of(w, row[at.WEIGHT], row, 1)
    rgamma = parameters_of(v, row[at.WEIGHT], row, 0)
    rbeta = parameters_of(v, row[at.BIAS], row, 0)
    s, rs = deviations_of(row, work, N), deviations_of(rrow, rwork, N)
    block = list_of(row, lists)
    task_passes.r_forward(ry, rs, rx, y, xh, s, gamma, rgamma, rbeta, slope, block, N)


# fmt: off
@external(f"{ROW}, {ROW}, {LISTS}, {flat(10)}, F", on_demand=True)
def r_backward(row, rrow, lists, N, rxh, dy, rdy, y, xh, work, rwork, w, v, grad, slope):
    gamma = parameters_of(w, row[at.WEIGHT], row, 1)
    rgamma = parameters_of(v, row[at.WEIGHT], row, 0)
    rdgamma = gradients_of(grad, row[at.WEIGHT], row)
    rdbeta = gradients_of(grad, row[at.BIAS], row)
    s, rs = deviations_of(row, work, N), deviations_of(rrow, rwork, N)
    task_passes.r_backward(rxh, rdgamma, rdbeta, dy, rdy, y, xh, s, rs, gamma, rgamma, slope,
                           list_of(row, lists), N)
# fmt: on


# ---- parameters in product order -----------------------------------------------------


@external("int64[::1], int64[::1], F[::1], F[::1]", on_demand=True)
def to_rows(row, lists, ordered, w):
    """Fills gamma and beta of `ordered` from w."""
    size, begin = row[at.C] * row[at.KH], row[at.LISTS + at.FILTER_ORDERS] + 1
    positions = lists[begin : begin + row[at.KH]]
    channels = lists[begin + row[at.KH] : begin + row[at.KH] + row[at.C]]
    for start in (row[at.WEIGHT], row[at.BIAS]):
        if start >= 0:
            transpose((ordered[start : start + size], positions, w[start : start + size], channels))


@external("int64[::1], int64[::1], F[::1], F[::1]", on_demand=True)
def from_rows(row, lists, w, ordered):
    """Fills gamma and beta of w from `ordered`."""
    size, begin = row[at.C] * row[at.KH], row[at.LISTS + at.FILTER_ORDERS] + 1
    positions = lists[begin : begin + row[at.KH]]
    channels = lists[begin + row[at.KH] : begin + row[at.KH] + row[at.C]]
    for start in (row[at.WEIGHT], row[at.BIAS]):
        if start >= 0:
            transpose((w[start : start + size], channels, ordered[start : start + size], positions))
