"""2-D convolution for T tasks with their own weights.

It is the cross-correlation that deep-learning libraries call a convolution.

    x   (T, N, C, H, W)          images
    w   (T, O, C/G, kH, kW)      filters per task, or (1, O, C/G, kH, kW) shared
    y   (T, N, O, Ho, Wo)        y[t,n,o,i,j] = sum_{c,p,q} w[t,o,c,p,q]
                                                * xpad[t,n,c, sH i + dH p, sW j + dW q]
    stride   (sH, sW)
    padding  ((top, bottom), (left, right)) rows and columns of zeros around x
    dilation (dH, dW), the distance between the taps of a filter

The shapes of x and w give the number of groups G. Inputs and outputs are in G groups of
neighbouring channels, and an output sees the inputs of its own group: with G > 1, c
counts the channels of that group.

The map is bilinear in (x, w), so all its derivatives are made of its two transposes:

    <dy, conv(x, w)>  =  <conv_dx(dy, w), x>  =  <conv_dw(x, dy), w>    for all x, w, dy

Each is one matrix product per task and group with the patch matrix of x. Row (n, i, j)
of it is the patch that the outputs [n, :, i, j] of the group depend on, channels last,
so that both copies below move runs of C/G neighbours. Weights shared by all tasks still
give one dw per task.
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


def tap(p, q, stride, dilation, out):
    """The rows and columns of the padded image that the positions see at tap (p, q)."""
    starts = p * dilation[0], q * dilation[1]
    return tuple(slice(a, a + s * n, s) for a, s, n in zip(starts, stride, out, strict=True))


def patches(x, w, stride, padding, dilation, out):
    """The patch matrices (T, G, N Ho Wo, kH kW C/G) of x, for filters of w's shape."""
    (T, N, C, H, W), (c, kH, kW), (Ho, Wo) = x.shape, w.shape[2:], out
    (top, bottom), (left, right) = padding
    xpad = np.zeros_like(x, shape=(T, N, top + H + bottom, left + W + right, C))
    xpad[:, :, top : top + H, left : left + W] = x.transpose(0, 1, 3, 4, 2)
    seen = np.empty_like(x, shape=(T, C // c, N, Ho, Wo, kH, kW, c))
    for p in range(kH):
        for q in range(kW):
            at_tap = xpad[:, :, *tap(p, q, stride, dilation, out)]
            groups = at_tap.reshape(T, N, Ho, Wo, C // c, c)
            seen[..., p, q, :] = groups.transpose(0, 4, 1, 2, 3, 5)
    return seen.reshape(T, C // c, N * Ho * Wo, kH * kW * c)


def add_patches(dx, dseen, stride, padding, dilation):
    """The transpose of `patches`.

    dx[pixel] = the sum of dseen (T, G, N, Ho, Wo, kH, kW, C/G) over all patches with
    the pixel.
    """
    (T, N, C, H, W), (Ho, Wo, kH, kW) = dx.shape, dseen.shape[3:7]
    (top, bottom), (left, right) = padding
    dxpad = np.zeros_like(dseen, shape=(T, N, top + H + bottom, left + W + right, C))
    for p in range(kH):
        for q in range(kW):
            groups = dseen[..., p, q, :].transpose(0, 2, 3, 4, 1, 5)
            at_tap = dxpad[:, :, *tap(p, q, stride, dilation, (Ho, Wo))]
            at_tap += groups.reshape(T, N, Ho, Wo, C)
    dx[...] = dxpad[:, :, top : top + H, left : left + W].transpose(0, 1, 4, 2, 3)


def filters(w, G):
    """The filters as matrices (T, G, O/G, kH kW C/G), in the order of a patch."""
    T, O = w.shape[:2]
    return w.transpose(0, 1, 3, 4, 2).reshape(T, G, O // G, -1)


def positions(y, G):
    """(T, N, O, Ho, Wo) -> (T, G, N Ho Wo, O/G): one row for each patch."""
    T, N, O, Ho, Wo = y.shape
    groups = y.reshape(T, N, G, O // G, Ho, Wo).transpose(0, 2, 1, 4, 5, 3)
    return groups.reshape(T, G, N * Ho * Wo, O // G)


def conv2d_forward(y, x, w, stride, padding, dilation=(1, 1)):
    """y = conv(x, w)."""
    T, N, O, Ho, Wo = y.shape
    seen = patches(x, w, stride, padding, dilation, (Ho, Wo))
    G = seen.shape[1]
    groups = (seen @ filters(w, G).swapaxes(2, 3)).reshape(T, G, N, Ho, Wo, O // G)
    y[...] = groups.transpose(0, 2, 1, 5, 3, 4).reshape(y.shape)


def conv2d_backward_x(dx, dy, w, stride, padding, dilation=(1, 1)):
    """dx = conv_dx(dy, w), the transpose of x -> conv(x, w)."""
    T, N, O, Ho, Wo = dy.shape
    _, _, c, kH, kW = w.shape
    G = dx.shape[2] // c
    dseen = positions(dy, G) @ filters(w, G)
    add_patches(dx, dseen.reshape(T, G, N, Ho, Wo, kH, kW, c), stride, padding, dilation)


def conv2d_backward_w(dw, x, dy, stride, padding, dilation=(1, 1)):
    """dw = conv_dw(x, dy), the transpose of w -> conv(x, w).

    dw is (T, O, C/G, kH, kW), one for each task.
    """
    T, O, c, kH, kW = dw.shape
    seen = patches(x, dw, stride, padding, dilation, dy.shape[3:])
    product = positions(dy, seen.shape[1]).swapaxes(2, 3) @ seen
    dw[...] = product.reshape(T, O, kH, kW, c).transpose(0, 1, 4, 2, 3)


def conv2d_r_forward(ry, x, rx, w, rw, stride, padding, dilation=(1, 1)):
    """ry = conv(rx, w) + conv(x, rw): the product rule on `conv2d_forward`."""
    term = np.empty_like(ry)
    conv2d_forward(ry, rx, w, stride, padding, dilation)
    conv2d_forward(term, x, rw, stride, padding, dilation)
    ry += term


def conv2d_r_backward_x(rdx, dy, rdy, w, rw, stride, padding, dilation=(1, 1)):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw): the product rule, likewise."""
    term = np.empty_like(rdx)
    conv2d_backward_x(rdx, rdy, w, stride, padding, dilation)
    conv2d_backward_x(term, dy, rw, stride, padding, dilation)
    rdx += term


def conv2d_r_backward_w(rdw, x, rx, dy, rdy, stride, padding, dilation=(1, 1)):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one for each task: likewise."""
    term = np.empty_like(rdw)
    conv2d_backward_w(rdw, rx, dy, stride, padding, dilation)
    conv2d_backward_w(term, x, rdy, stride, padding, dilation)
    rdw += term
