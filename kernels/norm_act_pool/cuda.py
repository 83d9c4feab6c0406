"""Batch-norm, activation and max-pooling in one go on a GPU: see reference.py for what is computed and for the arguments,
norm_act_pool.cu for how. Never run on one yet."""

__all__ = [
    "norm_act_pool_forward",
    "norm_act_pool_backward",
    "norm_act_pool_r_forward",
    "norm_act_pool_r_backward",
]

ROOM = (
    46 * 1024
)  # bytes of shared memory for a block's channel: what every GPU gives, 48 KB, less the sums
EACH = 8  # numbers of a channel for each thread, where there are enough
FEWEST, MOST = 32, 512  # threads of a block: whole warps, and the sums of 16 of them


def over_channels(launch, kernel, outputs, inputs, x, y, window, *numbers, held=1):
    """A block for each channel of x (T, N, C, H, W); held: how many arrays like x it keeps in shared memory if they fit."""
    _, N, C, H, W = x.shape
    room = held * N * H * W * x.itemsize
    fits = room <= ROOM
    launch.run(
        "norm_act_pool",
        kernel,
        (C, 1),
        threads(N * H * W),
        outputs,
        inputs,
        (N, C, H, W, *y.shape[3:], *window, int(fits), *map(float, numbers)),
        room if fits else 0,
    )


def threads(count):
    """For a block that goes through `count` numbers: a power of two."""
    return min(MOST, max(FEWEST, 1 << (max(1, count // EACH) - 1).bit_length()))


def norm_act_pool_forward(launch, y, place, mean, s, x, gamma, beta, eps, slope, window):
    """Fills y, place (int8), mean and s."""
    over_channels(
        launch,
        "norm_act_pool_forward",
        [y, place, mean, s],
        [x, gamma, beta],
        x,
        y,
        window,
        eps,
        slope,
    )


def norm_act_pool_backward(
    launch, dx, dgamma, dbeta, dy, y, place, x, mean, s, gamma, slope, window
):
    """Fills dx, dgamma = sum du xh, dbeta = sum du."""
    over_channels(
        launch,
        "norm_act_pool_backward",
        [dx, dgamma, dbeta],
        [dy, y, place, x, mean, s, gamma],
        x,
        y,
        window,
        slope,
    )


def norm_act_pool_r_forward(
    launch, ry, rmean, incline, rx, y, place, x, mean, s, gamma, rgamma, rbeta, slope, window
):
    """Fills ry, rmean and incline along (rx, rgamma, rbeta)."""
    over_channels(
        launch,
        "norm_act_pool_r_forward",
        [ry, rmean, incline],
        [rx, y, place, x, mean, s, gamma, rgamma, rbeta],
        x,
        y,
        window,
        slope,
        held=2,
    )


def norm_act_pool_r_backward(
    launch,
    rdx,
    rdgamma,
    rdbeta,
    dy,
    rdy,
    y,
    place,
    x,
    mean,
    s,
    rx,
    rmean,
    incline,
    gamma,
    rgamma,
    slope,
    window,
):
    """Fills rdx, rdgamma, rdbeta."""
    over_channels(
        launch,
        "norm_act_pool_r_backward",
        [rdx, rdgamma, rdbeta],
        [dy, rdy, y, place, x, mean, s, rx, rmean, incline, gamma, rgamma],
        x,
        y,
        window,
        slope,
        held=2,
    )
