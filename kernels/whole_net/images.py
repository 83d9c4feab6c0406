"""Where an operation finds its values, and the linear maps of images."""

import numpy as np

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.numba_runtime.unowned_views import part
from refmaml.kernels.pooling import cpu as pooling
from refmaml.kernels.whole_net import program as at

# ---- where values are ----------------------------------------------------------------


@inlined()
def input_of(row, start, x, work, N):
    """The input of an operation, its adjoint or its tangent; x, the net's input, if
    ABSENT.
    """
    return x if start < 0 else part(work, start, start + N * row[at.C] * row[at.H] * row[at.W])


@inlined()
def output_of(row, start, work, N):
    """The output of an operation, its adjoint or its tangent."""
    return part(work, start, start + N * row[at.O] * row[at.HO] * row[at.WO])


@inlined()
def winners_of(row, winners, N):
    """Which pixel of each window won; empty without pooling."""
    start = max(row[at.WINNERS], 0)
    size = N * row[at.O] * row[at.HO] * row[at.WO]
    return part(winners, start, start + size if row[at.WINNERS] >= 0 else start)


@inlined()
def scale_of(row, work):
    """s = 1 / sqrt(var + eps) of a batch-norm, or its tangent."""
    return part(work, row[at.S], row[at.S] + row[at.C])


@inner()
def channel_values(w, start, row, absent):
    """The C parameters from `start`; C times the number `absent` if there are none."""
    return np.full(row[at.C], absent, w.dtype) if start < 0 else part(w, start, start + row[at.C])


@inlined()
def channel_gradients(grad, start, row):
    """Where C gradients are written; a scratch array if there is no such parameter."""
    return np.empty(row[at.C], grad.dtype) if start < 0 else part(grad, start, start + row[at.C])


# ---- operations without parameters ---------------------------------------------------


@external("int64[::1], F[::1], F[::1], int16[::1], int64", on_demand=True)
def max_pool(row, y, x, winners, N):
    """Fills y and the winners."""
    C, H, W, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.HO], row[at.WO]
    for n in range(N):
        pooling.max_forward_image(
            y.reshape((N, Ho, Wo, C))[n],
            winners.reshape((N, Ho, Wo, C))[n],
            x.reshape((N, H, W, C))[n],
            (row[at.KH], row[at.KW]),
            (row[at.SH], row[at.SW]),
        )


@external("int64[::1], F[::1], F[::1], int16[::1], int64", on_demand=True)
def map_images(row, y, x, winners, N):
    """y from x for operations that are linear, given the winners: also ry from rx."""
    C, H, W, O, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.O], row[at.HO], row[at.WO]
    xs, ys = x.reshape((N, H, W, C)), y.reshape((N, Ho, Wo, O))
    window, stride = (row[at.KH], row[at.KW]), (row[at.SH], row[at.SW])
    for n in range(N):
        if row[at.KIND] == at.AVERAGE:
            pooling.avg_forward_image(ys[n], xs[n], window, stride)
        elif row[at.KIND] == at.MAX_POOL:
            pooling.gather_image(ys[n], winners.reshape((N, Ho, Wo, O))[n], xs[n], window, stride)
        else:
            for c in range(C):
                for h in range(H):
                    for w in range(W):
                        ys[n, 0, 0, (c * H + h) * W + w] = xs[n, h, w, c]


@external("int64[::1], F[::1], F[::1], int16[::1], int64", on_demand=True)
def map_images_transposed(row, dx, dy, winners, N):
    """The transpose of `map_images`: dx from dy."""
    C, H, W, O, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.O], row[at.HO], row[at.WO]
    dxs, dys = dx.reshape((N, H, W, C)), dy.reshape((N, Ho, Wo, O))
    window, stride = (row[at.KH], row[at.KW]), (row[at.SH], row[at.SW])
    for n in range(N):
        if row[at.KIND] == at.AVERAGE:
            pooling.avg_backward_image(dxs[n], dys[n], window, stride)
        elif row[at.KIND] == at.MAX_POOL:
            pooling.max_backward_image(
                dxs[n], winners.reshape((N, Ho, Wo, O))[n], dys[n], window, stride
            )
        else:
            for c in range(C):
                for h in range(H):
                    for w in range(W):
                        dxs[n, h, w, c] = dys[n, 0, 0, (c * H + h) * W + w]
