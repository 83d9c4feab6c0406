"""Squared error on a GPU, by the kernels of squared_error.cu.

Not run on a GPU yet.
"""

__all__ = ["squared_error_forward", "squared_error_backward", "squared_error_r_backward"]


def squared_error_forward(launch, loss, e, z, target, scale):
    """Fills loss (T,) and the residual e (T, N, D)."""
    launch.teams(
        "squared_error",
        "squared_error_forward",
        1,
        [loss, e],
        [z, target],
        z[:1].size,
        float(scale),
    )


def squared_error_backward(launch, dz, e, scale):
    """dz = 2 scale e."""
    launch.elements("squared_error", "squared_error_backward", [dz], [e], dz[:1].size, float(scale))


def squared_error_r_backward(launch, rdz, rz, scale):
    """rdz = 2 scale rz: the Hessian of a sum of squares is constant."""
    squared_error_backward(launch, rdz, rz, scale)
