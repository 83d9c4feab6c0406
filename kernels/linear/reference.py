"""Matrix product for T tasks with their own weights.

    x (T, N, I)    w (T, O, I) per task or (1, O, I) shared    y (T, N, O)
    y[t,n,o] = sum_i w[t,o,i] x[t,n,i]

The map is bilinear in (x, w), so all its derivatives are made of its two transposes.
Shared weights still give one dw per task.
"""

__all__ = [
    "linear_forward",
    "linear_backward_x",
    "linear_backward_w",
    "linear_r_forward",
    "linear_r_backward_x",
    "linear_r_backward_w",
]


def linear_forward(y, x, w):
    """y = x w'."""
    y[...] = x @ w.swapaxes(1, 2)


def linear_backward_x(dx, dy, w):
    """dx = dy w, the transpose of x -> x w'."""
    dx[...] = dy @ w


def linear_backward_w(dw, x, dy):
    """dw = dy' x, the transpose of w -> x w'; dw is (T, O, I)."""
    dw[...] = dy.swapaxes(1, 2) @ x


def linear_r_forward(ry, x, rx, w, rw):
    """ry = rx w' + x rw': the product rule on `linear_forward`."""
    ry[...] = rx @ w.swapaxes(1, 2) + x @ rw.swapaxes(1, 2)


def linear_r_backward_x(rdx, dy, rdy, w, rw):
    """rdx = rdy w + dy rw: the product rule, likewise."""
    rdx[...] = rdy @ w + dy @ rw


def linear_r_backward_w(rdw, x, rx, dy, rdy):
    """rdw = dy' rx + rdy' x, one for each task: likewise."""
    rdw[...] = dy.swapaxes(1, 2) @ rx + rdy.swapaxes(1, 2) @ x
