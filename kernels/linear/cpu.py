"""Matrix product for T tasks on a CPU: see reference.py. It is the convolution of images of one pixel with filters of one tap."""
from refmaml.kernels.conv2d import cpu as conv2d

__all__ = ["linear_forward", "linear_backward_x", "linear_backward_w",
           "linear_r_forward", "linear_r_backward_x", "linear_r_backward_w"]

STRIDE, PADDING = (1, 1), ((0, 0), (0, 0))


def pixels(*arrays):
    """(T, N, I) as images (T, N, I, 1, 1), w (T, O, I) as filters (T, O, I, 1, 1)."""
    return [a[..., None, None] for a in arrays]


def linear_forward(y, x, w):
    """y = x w'."""
    conv2d.conv2d_forward(*pixels(y, x, w), STRIDE, PADDING)


def linear_backward_x(dx, dy, w):
    """dx = dy w."""
    conv2d.conv2d_backward_x(*pixels(dx, dy, w), STRIDE, PADDING)


def linear_backward_w(dw, x, dy):
    """dw = dy' x, one per task."""
    conv2d.conv2d_backward_w(*pixels(dw, x, dy), STRIDE, PADDING)


def linear_r_forward(ry, x, rx, w, rw):
    """ry = rx w' + x rw'."""
    conv2d.conv2d_r_forward(*pixels(ry, x, rx, w, rw), STRIDE, PADDING)


def linear_r_backward_x(rdx, dy, rdy, w, rw):
    """rdx = rdy w + dy rw."""
    conv2d.conv2d_r_backward_x(*pixels(rdx, dy, rdy, w, rw), STRIDE, PADDING)


def linear_r_backward_w(rdw, x, rx, dy, rdy):
    """rdw = dy' rx + rdy' x, one per task."""
    conv2d.conv2d_r_backward_w(*pixels(rdw, x, rx, dy, rdy), STRIDE, PADDING)
