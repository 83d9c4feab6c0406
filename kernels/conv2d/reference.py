"""2-D convolution for T tasks with their own weights.

It is the cross-correlation that deep-learning libraries call a convolution.

    x   (T, N, C, H, W)          images
    w   (T, O, C, kH, kW)        filters per task, or (1, O, C, kH, kW) shared
    y   (T, N, O, Ho, Wo)        y[t,n,o,i,j] = sum_{c,p,q} w[t,o,c,p,q]
                                                * xpad[t,n,c, sH i + p, sW j + q]
    stride   (sH, sW)
    padding  ((top, bottom), (left, right)) rows and columns of zeros around x

The map is bilinear in (x, w), so all its derivatives are made of its two transposes:

    <dy, conv(x, w)>  =  <conv_dx(dy, w), x>  =  <conv_dw(x, dy), w>    for all x, w, dy

Each is one matrix product per task with the patch matrix of x. Row (n, i, j) of it is
the patch that y[:, n, :, i, j] depends on, channels last, so that both copies below
move runs of C neighbours. Weights shared by all tasks still give one dw per task.
"""

import numpy as np

__all__ = [
    "conv2d_forward",
    "conv2d_backward_x",
    "conv2d_backward_w",
    "conv2d_r_forward",
    "conv2d_r_backward_x",
    "conv2d_r_backward_w",
]


def patches(x, kernel, stride, padding, out):
    """The patch matrix (T, N Ho Wo, kH kW C) of x."""
    (T, N, C, H, W), (kH, kW), (sH, sW), (Ho, Wo) = x.shape, kernel, stride, out
    (top, bottom), (left, right) = padding
    xpad = np.zeros_like(x, shape=(T, N, top + H + bottom, left + W + right, C))
    xpad[:, :, top : top + H, left : left + W] = x.transpose(0, 1, 3, 4, 2)
    seen = np.empty_like(x, shape=(T, N, Ho, Wo, kH, kW, C))
    for p in range(kH):
        for q in range(kW):
            seen[..., p, q, :] = xpad[:, :, p : p + sH * Ho : sH, q : q + sW * Wo : sW]
    return seen.reshape(T, N * Ho * Wo, kH * kW * C)


def add_patches(dx, dseen, stride, padding):
    """The transpose of `patches`.

    dx[pixel] = the sum of dseen (T, N, Ho, Wo, kH, kW, C) over all patches with the
    pixel.
    """
    (T, N, C, H, W), (Ho, Wo, kH, kW), (sH, sW) = dx.shape, dseen.shape[2:6], stride
    (top, bottom), (left, right) = padding
    dxpad = np.zeros_like(dseen, shape=(T, N, top + H + bottom, left + W + right, C))
    for p in range(kH):
        for q in range(kW):
            dxpad[:, :, p : p + sH * Ho : sH, q : q + sW * Wo : sW] += dseen[..., p, q, :]
    dx[...] = dxpad[:, :, top : top + H, left : left + W].transpose(0, 1, 4, 2, 3)


def filters(w):
    """The filters as a matrix (T, O, kH kW C), in the order of a patch."""
    return w.transpose(0, 1, 3, 4, 2).reshape(*w.shape[:2], -1)


def positions(y):
    """(T, N, O, Ho, Wo) -> (T, N Ho Wo, O): one row for each patch."""
    T, N, O, Ho, Wo = y.shape
    return y.transpose(0, 1, 3, 4, 2).reshape(T, N * Ho * Wo, O)


def conv2d_forward(y, x, w, stride, padding):
    """y = conv(x, w)."""
    T, N, O, Ho, Wo = y.shape
    seen = patches(x, w.shape[3:], stride, padding, (Ho, Wo))
    y[...] = (seen @ filters(w).swapaxes(1, 2)).reshape(T, N, Ho, Wo, O).transpose(0, 1, 4, 2, 3)


def conv2d_backward_x(dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w), the transpose of x -> conv(x, w)."""
    T, N, O, Ho, Wo = dy.shape
    _, _, C, kH, kW = w.shape
    dseen = positions(dy) @ filters(w)
    add_patches(dx, dseen.reshape(T, N, Ho, Wo, kH, kW, C), stride, padding)


def conv2d_backward_w(dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), the transpose of w -> conv(x, w).

    dw is (T, O, C, kH, kW), one for each task.
    """
    T, O, C, kH, kW = dw.shape
    seen = patches(x, (kH, kW), stride, padding, dy.shape[3:])
    dw[...] = (
        (positions(dy).swapaxes(1, 2) @ seen).reshape(T, O, kH, kW, C).transpose(0, 1, 4, 2, 3)
    )


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw): the product rule on `conv2d_forward`."""
    term = np.empty_like(ry)
    conv2d_forward(ry, rx, w, stride, padding)
    conv2d_forward(term, x, rw, stride, padding)
    ry += term


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw): the product rule, likewise."""
    term = np.empty_like(rdx)
    conv2d_backward_x(rdx, rdy, w, stride, padding)
    conv2d_backward_x(term, dy, rw, stride, padding)
    rdx += term


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one for each task: likewise."""
    term = np.empty_like(rdw)
    conv2d_backward_w(rdw, rx, dy, stride, padding)
    conv2d_backward_w(term, x, rdy, stride, padding)
    rdw += term
