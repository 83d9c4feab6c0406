"""2-D convolution on a GPU: see reference.py for what is computed, conv2d.cu for how. Never run on one yet."""
__all__ = ["conv2d_forward", "conv2d_backward_x", "conv2d_backward_w",
           "conv2d_r_forward", "conv2d_r_backward_x", "conv2d_r_backward_w"]


def product(launch, kernel, out, first, second, x, y, w, stride, padding):
    """out = the product of the pair `first`, plus that of the pair `second` if it is not None; x, y and w say what the extents are."""
    pairs = [*first, *(second or first)]
    extents = [*x.shape[1:], *y.shape[2:], *w.shape[3:], *stride, padding[0][0], padding[1][0]]
    launch.elements("conv2d", f"{kernel}_v1", [out], pairs, *extents, 2 if second else 1)


def conv2d_forward(launch, y, x, w, stride, padding):
    """y = conv(x, w)."""
    product(launch, "conv2d_forward", y, (x, w), None, x, y, w, stride, padding)


def conv2d_backward_x(launch, dx, dy, w, stride, padding):
    """dx = conv_dx(dy, w)."""
    product(launch, "conv2d_backward_x", dx, (dy, w), None, dx, dy, w, stride, padding)


def conv2d_backward_w(launch, dw, x, dy, stride, padding):
    """dw = conv_dw(x, dy), one per task."""
    product(launch, "conv2d_backward_w", dw, (x, dy), None, x, dy, dw, stride, padding)


def conv2d_r_forward(launch, ry, x, rx, w, rw, stride, padding):
    """ry = conv(rx, w) + conv(x, rw)."""
    product(launch, "conv2d_forward", ry, (rx, w), (x, rw), x, ry, w, stride, padding)


def conv2d_r_backward_x(launch, rdx, dy, rdy, w, rw, stride, padding):
    """rdx = conv_dx(rdy, w) + conv_dx(dy, rw)."""
    product(launch, "conv2d_backward_x", rdx, (rdy, w), (dy, rw), rdx, dy, w, stride, padding)


def conv2d_r_backward_w(launch, rdw, x, rx, dy, rdy, stride, padding):
    """rdw = conv_dw(rx, dy) + conv_dw(x, rdy), one per task."""
    product(launch, "conv2d_backward_w", rdw, (rx, dy), (x, rdy), x, dy, rdw, stride, padding)
