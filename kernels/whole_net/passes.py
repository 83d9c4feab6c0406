"""The four walks through a chain, for one task: forward, backward, and the derivative of both along v; compiled from numba's point of view.

They are those of Sequential in network.py over a table of operations (program.py): what an operation does stands in its own folder.
x is the chain's input; w, v, grad and product are flat vectors of parameters; work holds values and adjoints, rwork their tangents.
All arrays are flat, and parameters in the order of filter_order.py; `turned` are those of w, `rturned` those of v, turned for the way back.
"""

import numpy as np

from refmaml.kernels.activation import cpu as activation
from refmaml.kernels.norm_act_pool import cpu as norm_act_pool
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.pooling import cpu as pooling
from refmaml.kernels.whole_net import products
from refmaml.kernels.whole_net import program as at

# ---- where things are ----------------------------------------------------------------------------------------------------


@inlined()
def input_of(row, start, x, work, N):
    """What an operation takes in, its adjoint or its tangent: a part of `work`, or the chain's input."""
    return x if start < 0 else work[start : start + N * row[at.C] * row[at.H] * row[at.W]]


@inlined()
def given(row, start, work, N):
    """What an operation gives, its adjoint or its tangent."""
    return work[start : start + N * row[at.O] * row[at.HO] * row[at.WO]]


@inlined()
def rows(a, row):
    """A row of channels for each pixel."""
    return a.reshape((len(a) // row[at.O], row[at.O]))


@inlined()
def winners(row, places, N):
    """Which pixel of each window won; nothing where nothing is pooled."""
    start = max(row[at.PLACES], 0)
    return (
        places[start : start + N * row[at.O] * row[at.HO] * row[at.WO]]
        if row[at.PLACES] >= 0
        else places[:0]
    )


@inner()
def channels(w, start, row, absent):
    """The C parameters from `start`; where there are none, `absent` C times."""
    return np.full(row[at.C], absent, w.dtype) if start < 0 else w[start : start + row[at.C]]


@inlined()
def gradients(grad, start, row):
    """Where C gradients go; nowhere where there is no such parameter."""
    return np.empty(row[at.C], grad.dtype) if start < 0 else grad[start : start + row[at.C]]


# ---- operations without parameters: linear maps of images, their transposes, and functions of single numbers ----------------------


@inner()
def map_images(row, y, x, places, N):
    """y from x where an operation is linear, or linear given its winners: also ry from rx."""
    C, H, W, O, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.O], row[at.HO], row[at.WO]
    xs, ys = x.reshape((N, H, W, C)), y.reshape((N, Ho, Wo, O))
    window, stride = (row[at.KH], row[at.KW]), (row[at.SH], row[at.SW])
    for n in range(N):
        if row[at.KIND] == at.AVERAGE:
            pooling.avg_forward_image(ys[n], xs[n], window, stride)
        elif row[at.KIND] == at.MAX_POOL:
            pooling.gather_image(ys[n], places.reshape((N, Ho, Wo, O))[n], xs[n], window, stride)
        else:
            for c in range(C):
                for h in range(H):
                    for w in range(W):
                        ys[n, 0, 0, (c * H + h) * W + w] = xs[n, h, w, c]


@inner()
def map_back(row, dx, dy, places, N):
    """The transpose of `map_images`."""
    C, H, W, O, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.O], row[at.HO], row[at.WO]
    dxs, dys = dx.reshape((N, H, W, C)), dy.reshape((N, Ho, Wo, O))
    window, stride = (row[at.KH], row[at.KW]), (row[at.SH], row[at.SW])
    for n in range(N):
        if row[at.KIND] == at.AVERAGE:
            pooling.avg_backward_image(dxs[n], dys[n], window, stride)
        elif row[at.KIND] == at.MAX_POOL:
            pooling.max_backward_image(
                dxs[n], places.reshape((N, Ho, Wo, O))[n], dys[n], window, stride
            )
        else:
            for c in range(C):
                for h in range(H):
                    for w in range(W):
                        dxs[n, h, w, c] = dys[n, 0, 0, (c * H + h) * W + w]


# ---- the walks, each compiled by itself: the types of their arguments, F the precision ------------------------------------------


PROGRAM, WORK = (
    "int64[:,::1], F[:,::1], int64[::1], int64",
    "F[::1], int16[::1]",
)  # table, reals, lists, N; work, places
FORWARD = f"{PROGRAM}, F[::1], F[::1], {WORK}"
BACKWARD = f"int64[:,::1], {PROGRAM}, F[::1], F[::1], F[::1], F[::1], F[::1], {WORK}"
R_FORWARD = f"int64[:,::1], {PROGRAM}, F[::1], F[::1], F[::1], F[::1], {WORK}"
R_BACKWARD = (
    f"int64[:,::1], {PROGRAM}, F[::1], F[::1], F[::1], F[::1], F[::1], F[::1], F[::1], {WORK}"
)


@external(FORWARD)
def forward(table, reals, lists, N, x, w, work, places):
    """Fills the values in `work`, and places."""
    for i in range(len(table)):
        row, kind = table[i], table[i, at.KIND]
        a, y, place = (
            input_of(row, row[at.X], x, work, N),
            given(row, row[at.Y], work, N),
            winners(row, places, N),
        )
        if kind <= at.MATRIX:
            products.forward(row, lists, N, y, a, a[:0], w, w)
        elif kind == at.NORM_ACT_POOL:
            slope, block = reals[i, 1], products.block_of(row, lists, 0)
            norm_act_pool.forward(
                y,
                place,
                a,
                work[row[at.S] : row[at.S] + row[at.C]],
                channels(w, row[at.WEIGHT], row, 1),
                channels(w, row[at.BIAS], row, 0),
                reals[i, 0],
                slope,
                block,
                N,
            )
        elif kind == at.ACTIVATE:
            activation.forward_block(y, a, row[at.FUNCTION], reals[i, 1])
        elif kind == at.MAX_POOL:
            C, H, W, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.HO], row[at.WO]
            for n in range(N):
                pooling.max_forward_image(
                    y.reshape((N, Ho, Wo, C))[n],
                    place.reshape((N, Ho, Wo, C))[n],
                    a.reshape((N, H, W, C))[n],
                    (row[at.KH], row[at.KW]),
                    (row[at.SH], row[at.SW]),
                )
        else:
            map_images(row, y, a, place, N)


@external(BACKWARD)
def backward(table, dtable, reals, lists, N, x, w, turned, grad, work, dwork, places):
    """Fills the gradient from the adjoint of the last value; adjoints lie in dwork where dtable says (work and table, if they are kept)."""
    for i in range(len(table) - 1, -1, -1):
        row, drow, kind = table[i], dtable[i], table[i, at.KIND]
        a, y, place = (
            input_of(row, row[at.X], x, work, N),
            given(row, row[at.Y], work, N),
            winners(row, places, N),
        )
        dx, dy = input_of(row, drow[at.DX], x, dwork, N), given(row, drow[at.DY], dwork, N)
        if kind <= at.MATRIX:
            products.backward_w(row, lists, N, grad, a, a[:0], dy, dy)
            if row[at.X] >= 0:
                products.backward_x(row, lists, N, dx, dy, dy[:0], turned, turned)
        elif kind == at.NORM_ACT_POOL:
            slope, block = reals[i, 1], products.block_of(row, lists, 0)
            norm_act_pool.backward(
                dx,
                gradients(grad, row[at.WEIGHT], row),
                gradients(grad, row[at.BIAS], row),
                dy,
                y,
                place,
                a,
                work[row[at.S] : row[at.S] + row[at.C]],
                channels(w, row[at.WEIGHT], row, 1),
                slope,
                block,
                N,
            )
        elif kind == at.ACTIVATE:
            activation.derivative_block(dx, dy, a, row[at.FUNCTION], reals[i, 1])
        elif i > 0:
            map_back(row, dx, dy, place, N)


@external(R_FORWARD)
def r_forward(table, rtable, reals, lists, N, x, w, v, work, rwork, places):
    """Fills the tangents of the values along v, and what the second walk needs of them."""
    lead = first_product(table)
    for i in range(lead, len(table)):
        row, rrow, kind = table[i], rtable[i], table[i, at.KIND]
        a, y, place = (
            input_of(row, row[at.X], x, work, N),
            given(row, row[at.Y], work, N),
            winners(row, places, N),
        )
        ra, ry = input_of(row, rrow[at.X], x, rwork, N), given(row, rrow[at.Y], rwork, N)
        if kind <= at.MATRIX:
            if i == lead:  # the input has no tangent
                products.forward(row, lists, N, ry, a, a[:0], v, v)
            else:
                products.forward(row, lists, N, ry, ra, a, w, v)
        elif kind == at.NORM_ACT_POOL:
            slope, block = reals[i, 1], products.block_of(row, lists, 0)
            norm_act_pool.r_forward(
                ry,
                rwork[rrow[at.S] : rrow[at.S] + row[at.C]],
                ra,
                y,
                place,
                a,
                work[row[at.S] : row[at.S] + row[at.C]],
                channels(w, row[at.WEIGHT], row, 1),
                channels(v, row[at.WEIGHT], row, 0),
                channels(v, row[at.BIAS], row, 0),
                slope,
                block,
                N,
            )
        elif kind == at.ACTIVATE:
            activation.derivative_block(ry, ra, a, row[at.FUNCTION], reals[i, 1])
        else:
            map_images(row, ry, ra, place, N)


@external(R_BACKWARD)
def r_backward(table, rtable, reals, lists, N, x, w, v, turned, rturned, grad, work, rwork, places):
    """Fills the tangent of the gradient from the tangent of the last adjoint."""
    lead = first_product(table)
    for i in range(len(table) - 1, lead - 1, -1):
        row, rrow, kind = table[i], rtable[i], table[i, at.KIND]
        a, y, place = (
            input_of(row, row[at.X], x, work, N),
            given(row, row[at.Y], work, N),
            winners(row, places, N),
        )
        ra, dy = input_of(row, rrow[at.X], x, rwork, N), given(row, row[at.DY], work, N)
        rdx, rdy = input_of(row, rrow[at.DX], x, rwork, N), given(row, rrow[at.DY], rwork, N)
        if kind <= at.MATRIX:
            if i == lead:
                products.backward_w(row, lists, N, grad, a, a[:0], rdy, rdy)
            else:
                products.backward_w(row, lists, N, grad, ra, a, dy, rdy)
                products.backward_x(row, lists, N, rdx, rdy, dy, turned, rturned)
        elif kind == at.NORM_ACT_POOL:
            slope, block = reals[i, 1], products.block_of(row, lists, 0)
            norm_act_pool.r_backward(
                ra,
                gradients(grad, row[at.WEIGHT], row),
                gradients(grad, row[at.BIAS], row),
                dy,
                rdy,
                y,
                place,
                a,
                work[row[at.S] : row[at.S] + row[at.C]],
                rwork[rrow[at.S] : rrow[at.S] + row[at.C]],
                channels(w, row[at.WEIGHT], row, 1),
                channels(v, row[at.WEIGHT], row, 0),
                slope,
                block,
                N,
            )
        elif kind == at.ACTIVATE:
            activation.r_derivative_block(rdx, dy, rdy, a, ra, row[at.FUNCTION], reals[i, 1])
        else:
            map_back(row, rdx, rdy, place, N)


@inlined()
def first_product(table):
    """The first operation with parameters."""
    i = 0
    while table[i, at.KIND] > at.MATRIX:
        i += 1
    return i
