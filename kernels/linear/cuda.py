"""Matrix product for T tasks on a GPU, by the kernels of linear.cu.

Not run on a GPU yet.
"""

__all__ = [
    "linear_forward",
    "linear_backward_x",
    "linear_backward_w",
    "linear_r_forward",
    "linear_r_backward_x",
    "linear_r_backward_w",
]


def product(launch, kernel, out, first, second, x, y):
    """out = the product of the pair `first`, plus that of `second` unless it is None.

    x, y  arrays of the shapes of the layer's input and output
    """
    matrix = out.shape[1], out.shape[2:], 0
    inputs, pairs = [*first, *(second or first)], 2 if second else 1
    extents = *x.shape[1:], y.shape[2]
    launch.product("linear", kernel, matrix, [out], inputs, *extents, pairs, newest=2)


def linear_forward(launch, y, x, w):
    """y = x w'."""
    product(launch, "linear_forward", y, (x, w), None, x, y)


def linear_backward_x(launch, dx, dy, w):
    """dx = dy w."""
    product(launch, "linear_backward_x", dx, (dy, w), None, dx, dy)


def linear_backward_w(launch, dw, x, dy):
    """dw = dy' x, one for each task."""
    product(launch, "linear_backward_w", dw, (x, dy), None, x, dy)


def linear_r_forward(launch, ry, x, rx, w, rw):
    """ry = rx w' + x rw'."""
    product(launch, "linear_forward", ry, (rx, w), (x, rw), x, ry)


def linear_r_backward_x(launch, rdx, dy, rdy, w, rw):
    """rdx = rdy w + dy rw."""
    product(launch, "linear_backward_x", rdx, (rdy, w), (dy, rw), rdx, dy)


def linear_r_backward_w(launch, rdw, x, rx, dy, rdy):
    """rdw = dy' rx + rdy' x, one for each task."""
    product(launch, "linear_backward_w", rdw, (rx, dy), (x, rdy), x, dy)
