"""Elementwise activations: the four passes, for every function of functions.py.

forward      y   = f(x)
backward     dx  = f'(x) dy
r_forward    ry  = f'(x) rx
r_backward   rdx = f'(x) rdy + f''(x) rx dy
"""

__all__ = [
    "activation_forward",
    "activation_backward",
    "activation_r_forward",
    "activation_r_backward",
]


def activation_forward(y, x, function):
    """y = f(x); `function` is an Elementwise."""
    y[...] = function.f(x)


def activation_backward(dx, dy, x, function):
    """dx = f'(x) dy."""
    dx[...] = function.df(x) * dy


def activation_r_forward(ry, rx, x, function):
    """ry = f'(x) rx."""
    ry[...] = function.df(x) * rx


def activation_r_backward(rdx, dy, rdy, x, rx, function):
    """rdx = f'(x) rdy + f''(x) rx dy."""
    rdx[...] = function.df(x) * rdy
    if function.ddf is not None:
        rdx += function.ddf(x) * rx * dy
