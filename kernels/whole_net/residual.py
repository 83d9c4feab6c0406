"""Sums of two values of one size, and values that two operations read.

    Sum    y = a + b        da = dy, db = dy
    Fork   y1 = y2 = x      dx = dx1 + dx2

Neither has a term of its own along a direction. The memory plan (memory_plan.py) lets
a Fork's outputs be x itself and dx1 be dx; da is dy, and so is db unless one of the
operations before the Sum changes its dy in place.
"""

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.whole_net import columns as at
from refmaml.kernels.whole_net.images import input_of


@external("F[::1], F[::1], F[::1]", on_demand=True)
def add(y, a, b):
    """y = a + b; y may be a."""
    for i in range(len(y)):
        y[i] = a[i] + b[i]


@external("F[::1], F[::1]", on_demand=True)
def copy(to, source):
    for i in range(len(to)):
        to[i] = source[i]


@inlined()
def forward(row, y, a, x, work, N):
    """Also r_forward, if the second input of a Sum has a tangent."""
    if row[at.KIND] == at.SUM:
        add(y, a, input_of(row, row[at.X2], x, work, N))


@inlined()
def r_forward(row, rrow, ry, ra, x, rwork, N):
    if row[at.CONSTANT] == 1:  # the second input of a Sum has no tangent
        copy(ry, ra)
    else:
        forward(rrow, ry, ra, x, rwork, N)


@inlined()
def backward(row, dx, dy, x, work, N):
    """Also r_backward; `row` says where the adjoints are."""
    if row[at.KIND] == at.FORK:
        add(dx, dx, input_of(row, row[at.DX2], x, work, N))
    elif row[at.DX2] != row[at.DY]:
        copy(input_of(row, row[at.DX2], x, work, N), dy)
