"""2-D convolution (cross-correlation, as every deep-learning library means it) for T tasks with their own weights.

    x   (T, N, C, H, W)          images
    w   (T, O, C, kH, kW)        filters per task, or (1, O, C, kH, kW) shared by all tasks
    y   (T, N, O, Ho, Wo)        y[t,n,o,i,j] = sum_{c,p,q} w[t,o,c,p,q] * xpad[t,n,c, sH i + p, sW j + q]
    stride   (sH, sW)
    padding  ((top, bottom), (left, right)) rows and columns of zeros around x

The map is bilinear in (x, w), so its two transposes are all the calculus there is:

    <dy, conv(x, w)>  =  <conv_dx(dy, w), x>  =  <conv_dw(x, dy), w>       for all x, w, dy

Each is one matrix product per task on the patch matrix of x, whose column (n, i, j) holds the patch that y[:, n, :, i, j] sees.
Weights shared by all tasks still give one dw per task.
"""
import numpy as np

__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w"]


def patches(x, kernel, stride, padding, out):
    """The patch matrix (T, C kH kW, N Ho Wo) of x."""
    (T, N, C, _, _), (kH, kW), (sH, sW), (Ho, Wo) = x.shape, kernel, stride, out
    xpad = np.pad(x, ((0, 0), (0, 0), (0, 0), *padding))
    cols = np.empty_like(x, shape=(T, C, kH, kW, N, Ho, Wo))
    for p in range(kH):
        for q in range(kW):
            seen = xpad[..., p:p + sH * Ho:sH, q:q + sW * Wo:sW]                 # (T, N, C, Ho, Wo)
            cols[:, :, p, q] = seen.swapaxes(1, 2)
    return cols.reshape(T, C * kH * kW, N * Ho * Wo)


def add_patches(dx, dcols, kernel, stride, padding):
    """The transpose of `patches`: dx[pixel] = sum of dcols over every patch that saw the pixel."""
    (T, N, C, H, W), (kH, kW), (sH, sW) = dx.shape, kernel, stride
    (top, bottom), (left, right) = padding
    Ho, Wo = dcols.shape[-2:]
    dxpad = np.zeros_like(dcols, shape=(T, N, C, top + H + bottom, left + W + right))
    for p in range(kH):
        for q in range(kW):
            dxpad[..., p:p + sH * Ho:sH, q:q + sW * Wo:sW] += dcols[:, :, p, q].swapaxes(1, 2)
    dx[...] = dxpad[..., top:top + H, left:left + W]


def as_matrix(y):
    """(T, N, O, Ho, Wo) -> (T, O, N Ho Wo), the layout in which a convolution is a matrix product."""
    T, N, O, Ho, Wo = y.shape
    return y.swapaxes(1, 2).reshape(T, O, N * Ho * Wo)


def conv2d_forward(y, x, w, stride, padding):
    """y = conv(x, w)."""
    T, N, O, Ho, Wo = y.shape
    cols = patches(x, w.shape[-2:], stride, padding, (Ho, Wo))
    y[...] = (w.reshape(len(w), O, -1) @ cols).reshape(T, O, N, Ho, Wo).swapaxes(1, 2)


def conv2d_backward_x(dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w), the transpose of x -> conv(x, w)."""
    T, N, O, Ho, Wo = dy.shape
    _, _, C, kH, kW = w.shape
    dcols = w.reshape(len(w), O, -1).swapaxes(1, 2) @ as_matrix(dy)              # (T, C kH kW, N Ho Wo)
    add_patches(dx, dcols.reshape(T, C, kH, kW, N, Ho, Wo), (kH, kW), stride, padding)


def conv2d_backward_w(dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), the transpose of w -> conv(x, w), one per task: dw is (T, O, C, kH, kW)."""
    cols = patches(x, dw.shape[-2:], stride, padding, dy.shape[-2:])
    dw[...] = (as_matrix(dy) @ cols.swapaxes(1, 2)).reshape(dw.shape)
