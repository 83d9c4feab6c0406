"""Batch-norm, activation and max-pooling as one operation on a GPU.

reference.py has the formulas and describes the arguments; norm_act_pool.cu has the
kernels. Not run on a GPU yet.
"""

from refmaml.kernels.pooling.reference import expect_wide_enough

__all__ = [
    "norm_act_pool_forward",
    "norm_act_pool_backward",
    "norm_act_pool_r_forward",
    "norm_act_pool_r_backward",
]

SHARED_BYTES = 46 * 1024  # for the channel of a block: 48 KB on every GPU, less the partial sums
PER_THREAD = 8  # numbers of a channel for each thread, where there are enough
MIN_THREADS, MAX_THREADS = 32, 512  # of a block: whole warps, and the sums of 16 warps


def over_channels(launch, kernel, outputs, inputs, x, y, window, *numbers, arrays=1):
    """One block for each channel of x (T, N, C, H, W).

    arrays  how many arrays of the shape of x a block keeps in shared memory, if they
    fit
    """
    _, N, C, H, W = x.shape
    size = arrays * N * H * W * x.itemsize
    fits = size <= SHARED_BYTES
    extents = N, C, H, W, *y.shape[3:], *window, int(fits)
    launch.run(
        "norm_act_pool",
        kernel,
        (C, 1),
        threads(N * H * W),
        outputs,
        inputs,
        (*extents, *map(float, numbers)),
        size if fits else 0,
    )


def threads(count):
    """The threads of a block for a channel of `count` numbers: a power of two."""
    return min(MAX_THREADS, max(MIN_THREADS, 1 << (max(1, count // PER_THREAD) - 1).bit_length()))


def expect_int8(place):
    """Raise ValueError unless the kernels can read the integers of `place`."""
    if place.dtype.name != "int8":
        raise ValueError(f"place: expected int8, got {place.dtype}")


def norm_act_pool_forward(launch, y, place, mean, s, x, gamma, beta, eps, slope, window):
    """Fills y, place (int8), mean and s.

    Raises ValueError for windows of more than 128 pixels, which int8 cannot number.
    """
    expect_int8(place)
    expect_wide_enough(place, window)
    outputs, inputs = [y, place, mean, s], [x, gamma, beta]
    over_channels(launch, "norm_act_pool_forward", outputs, inputs, x, y, window, eps, slope)


def norm_act_pool_backward(
    launch, dx, dgamma, dbeta, dy, y, place, x, mean, s, gamma, slope, window
):
    """Fills dx, dgamma = sum du xh, dbeta = sum du."""
    expect_int8(place)
    outputs, inputs = [dx, dgamma, dbeta], [dy, y, place, x, mean, s, gamma]
    over_channels(launch, "norm_act_pool_backward", outputs, inputs, x, y, window, slope)


def norm_act_pool_r_forward(
    launch, ry, rmean, incline, rx, y, place, x, mean, s, gamma, rgamma, rbeta, slope, window
):
    """Fills ry, rmean and incline along (rx, rgamma, rbeta)."""
    expect_int8(place)
    inputs = [rx, y, place, x, mean, s, gamma, rgamma, rbeta]
    over_channels(
        launch,
        "norm_act_pool_r_forward",
        [ry, rmean, incline],
        inputs,
        x,
        y,
        window,
        slope,
        arrays=2,
    )


# fmt: off
def norm_act_pool_r_backward(
    launch, rdx, rdgamma, rdbeta, dy, rdy, y, place, x, mean, s, rx, rmean, incline,
    gamma, rgamma, slope, window,
):
    """Fills rdx, rdgamma, rdbeta."""
    expect_int8(place)
    inputs = [dy, rdy, y, place, x, mean, s, rx, rmean, incline, gamma, rgamma]
    over_channels(
        launch, "norm_act_pool_r_backward", [rdx, rdgamma, rdbeta], inputs, x, y, window, slope,
        arrays=2,
    )
# fmt: on
