"""Feature-wise linear modulation: every channel is scaled and shifted, for each task.

x, y (T, N, C, L)    gamma, beta (T, C) per task or (1, C) shared    y = gamma x + beta
"""

__all__ = ["film_forward", "film_backward", "film_r_forward", "film_r_backward"]


def per_channel(a):
    """(T, C) -> (T, 1, C, 1)."""
    return a[:, None, :, None]


def film_forward(y, x, gamma, beta):
    """y = gamma x + beta."""
    y[...] = per_channel(gamma) * x + per_channel(beta)


def film_backward(dx, dgamma, dbeta, dy, x, gamma):
    """dx = gamma dy, dgamma = sum dy x, dbeta = sum dy."""
    dx[...] = per_channel(gamma) * dy
    dgamma[...] = (dy * x).sum(axis=(1, 3))
    dbeta[...] = dy.sum(axis=(1, 3))


def film_r_forward(ry, x, rx, gamma, rgamma, rbeta):
    """ry = gamma rx + rgamma x + rbeta."""
    ry[...] = per_channel(gamma) * rx + per_channel(rgamma) * x + per_channel(rbeta)


def film_r_backward(rdx, rdgamma, rdbeta, dy, rdy, x, rx, gamma, rgamma):
    """The product rule on each line of `film_backward`."""
    rdx[...] = per_channel(gamma) * rdy + per_channel(rgamma) * dy
    rdgamma[...] = (rdy * x + dy * rx).sum(axis=(1, 3))
    rdbeta[...] = rdy.sum(axis=(1, 3))
