"""Where an operation finds its values, and the linear maps of images."""

import numpy as np

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.numba_runtime.unowned_views import part
from refmaml.kernels.pooling import cpu as pooling
from refmaml.kernels.whole_net import columns as at

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


@inlined()
def map_images(row, y, x, winners, N):
    """y from x for operations that are linear, given the winners: also ry from rx."""
    if row[at.KIND] == at.AVERAGE:
        average(row, y, x, N)
    elif row[at.KIND] == at.MAX_POOL:
        gather(row, y, x, winners, N)
    else:
        flatten(row, y, x, N)


@inlined()
def map_images_transposed(row, dx, dy, winners, N):
    """The transpose of `map_images`: dx from dy."""
    if row[at.KIND] == at.AVERAGE:
        average_transposed(row, dx, dy, N)
    elif row[at.KIND] == at.MAX_POOL:
        scatter(row, dx, dy, winners, N)
    else:
        flatten_transposed(row, dx, dy, N)


@external("int64[::1], F[::1], F[::1], int64", on_demand=True)
def average(row, y, x, N):
    """The mean over windows."""
    C, H, W, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.HO], row[at.WO]
    xs, ys = x.reshape((N, H, W, C)), y.reshape((N, Ho, Wo, C))
    window, stride = (row[at.KH], row[at.KW]), (row[at.SH], row[at.SW])
    for n in range(N):
        pooling.avg_forward_image(ys[n], xs[n], window, stride)


@external("int64[::1], F[::1], F[::1], int64", on_demand=True)
def average_transposed(row, dx, dy, N):
    """The transpose of `average`."""
    C, H, W, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.HO], row[at.WO]
    dxs, dys = dx.reshape((N, H, W, C)), dy.reshape((N, Ho, Wo, C))
    window, stride = (row[at.KH], row[at.KW]), (row[at.SH], row[at.SW])
    for n in range(N):
        pooling.avg_backward_image(dxs[n], dys[n], window, stride)


@external("int64[::1], F[::1], F[::1], int16[::1], int64", on_demand=True)
def gather(row, y, x, winners, N):
    """y = x at the winners of max-pooling."""
    C, H, W, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.HO], row[at.WO]
    xs, ys = x.reshape((N, H, W, C)), y.reshape((N, Ho, Wo, C))
    won = winners.reshape((N, Ho, Wo, C))
    window, stride = (row[at.KH], row[at.KW]), (row[at.SH], row[at.SW])
    for n in range(N):
        pooling.gather_image(ys[n], won[n], xs[n], window, stride)


@external("int64[::1], F[::1], F[::1], int16[::1], int64", on_demand=True)
def scatter(row, dx, dy, winners, N):
    """The transpose of `gather`."""
    C, H, W, Ho, Wo = row[at.C], row[at.H], row[at.W], row[at.HO], row[at.WO]
    dxs, dys = dx.reshape((N, H, W, C)), dy.reshape((N, Ho, Wo, C))
    won = winners.reshape((N, Ho, Wo, C))
    window, stride = (row[at.KH], row[at.KW]), (row[at.SH], row[at.SW])
    for n in range(N):
        pooling.max_backward_image(dxs[n], won[n], dys[n], window, stride)


@external("int64[::1], F[::1], F[::1], int64", on_demand=True)
def flatten(row, y, x, N):
    """From channels last to the row-major order of (C, H, W)."""
    C, H, W = row[at.C], row[at.H], row[at.W]
    for n in range(N):
        i = n * C * H * W
        for c in range(C):
            for e in range(H * W):
                y[i + c * H * W + e] = x[i + e * C + c]


@external("int64[::1], F[::1], F[::1], int64", on_demand=True)
def flatten_transposed(row, dx, dy, N):
    """The transpose of `flatten`."""
    C, H, W = row[at.C], row[at.H], row[at.W]
    for n in range(N):
        i = n * C * H * W
        for c in range(C):
            for e in range(H * W):
                dx[i + e * C + c] = dy[i + c * H * W + e]
