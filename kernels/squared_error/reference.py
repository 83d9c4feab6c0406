"""Squared error of outputs z with targets (T, N, D): one loss per task.

e = z - target      loss[t] = scale sum_{n,d} e^2      dz = 2 scale e      rdz = 2 scale
rz
"""

__all__ = ["squared_error_forward", "squared_error_backward", "squared_error_r_backward"]


def squared_error_forward(loss, e, z, target, scale):
    """Fills loss (T,) and the residual e (T, N, D)."""
    e[...] = z - target
    loss[...] = scale * (e * e).sum(axis=(1, 2))


def squared_error_backward(dz, e, scale):
    """dz = 2 scale e."""
    dz[...] = 2 * scale * e


def squared_error_r_backward(rdz, rz, scale):
    """rdz = 2 scale rz: the Hessian of a sum of squares is constant."""
    rdz[...] = 2 * scale * rz
