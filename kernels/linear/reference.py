"""Matrix product for T tasks with their own weights.

    x (T, N, I)    w (T, O, I) per task or (1, O, I) shared    y (T, N, O)    y[t,n,o] = sum_i w[t,o,i] x[t,n,i]

Bilinear in (x, w): the two transposes below are all the calculus there is. Shared weights still give one dw per task.
"""
__all__ = ["linear_forward", "linear_backward_x", "linear_backward_w"]


def linear_forward(y, x, w):
    """y = x w'."""
    y[...] = x @ w.swapaxes(1, 2)


def linear_backward_x(dx, dy, w):
    """dx = dy w, the transpose of x -> x w'."""
    dx[...] = dy @ w


def linear_backward_w(dw, x, dy):
    """dw = dy' x, the transpose of w -> x w'; dw is (T, O, I)."""
    dw[...] = dy.swapaxes(1, 2) @ x
