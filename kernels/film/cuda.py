"""Feature-wise linear modulation on a GPU, by the kernels of film.cu.

Not run on a GPU yet.
"""

__all__ = ["film_forward", "film_backward", "film_r_forward", "film_r_backward"]


def film_forward(launch, y, x, gamma, beta):
    """y = gamma x + beta."""
    launch.elements("film", "film_forward", [y], [x, gamma, beta], *y.shape[1:])


def film_backward(launch, dx, dgamma, dbeta, dy, x, gamma):
    """dx = gamma dy, dgamma = sum dy x, dbeta = sum dy."""
    launch.teams(
        "film", "film_backward", dy.shape[2], [dx, dgamma, dbeta], [dy, x, gamma], *dy.shape[1:]
    )


def film_r_forward(launch, ry, x, rx, gamma, rgamma, rbeta):
    """ry = gamma rx + rgamma x + rbeta."""
    launch.elements("film", "film_r_forward", [ry], [x, rx, gamma, rgamma, rbeta], *ry.shape[1:])


def film_r_backward(launch, rdx, rdgamma, rdbeta, dy, rdy, x, rx, gamma, rgamma):
    """The product rule on each line of `film_backward`."""
    launch.teams(
        "film",
        "film_r_backward",
        dy.shape[2],
        [rdx, rdgamma, rdbeta],
        [dy, rdy, x, rx, gamma, rgamma],
        *dy.shape[1:],
    )
