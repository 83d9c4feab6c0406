"""2-D convolution on a GPU: see reference.py for what is computed, conv2d.cu for how. Never run on one yet."""
__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w",
           "conv2d_r_forward", "conv2d_r_backward_x", "conv2d_r_backward_w"]


def product(launch, kernel, matrix, out, first, second, x, y, w, stride, padding):
    """out = the product of the pair `first`, plus that of the pair `second` if it is not None; x, y and w say what the extents are.

    matrix  the rows and columns of `out` as a product of matrices
    """
    extents = [*x.shape[1:], *y.shape[2:], *w.shape[3:], *stride, padding[0][0], padding[1][0]]
    launch.product("conv2d", kernel, matrix, [out], [*first, *(second or first)], *extents, 2 if second else 1)


def by_channel(a):
    """Images (T, N, C, H, W) as a matrix: C rows of N H W."""
    return a.shape[2], a[:1, :, :1].size


def by_filter(w):
    """Filters (T, O, C, kH, kW) as a matrix: O rows of C kH kW."""
    return w.shape[1], w[:1, :1].size


def conv2d_forward(launch, y, x, w, stride, padding):
    """y = conv(x, w)."""
    product(launch, "conv2d_forward", by_channel(y), y, (x, w), None, x, y, w, stride, padding)


def conv2d_backward_x(launch, dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    product(launch, "conv2d_backward_x", by_channel(dx), dx, (dy, w), None, dx, dy, w, stride, padding)


def conv2d_backward_w(launch, dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one per task."""
    product(launch, "conv2d_backward_w", by_filter(dw), dw, (x, dy), None, x, dy, dw, stride, padding)


def conv2d_r_forward(launch, ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    product(launch, "conv2d_forward", by_channel(ry), ry, (rx, w), (x, rw), x, ry, w, stride, padding)


def conv2d_r_backward_x(launch, rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    product(launch, "conv2d_backward_x", by_channel(rdx), rdx, (rdy, w), (dy, rw), rdx, dy, w, stride, padding)


def conv2d_r_backward_w(launch, rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    product(launch, "conv2d_backward_w", by_filter(rdw), rdw, (rx, dy), (x, rdy), x, dy, rdw, stride, padding)
