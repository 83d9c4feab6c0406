"""Batch normalisation on a GPU, by the kernels of batch_norm.cu.

Not run on a GPU yet.
"""

__all__ = [
    "batch_norm_forward",
    "batch_norm_backward",
    "batch_norm_r_forward",
    "batch_norm_r_backward",
]


def over_channels(launch, kernel, outputs, inputs, *numbers):
    """One team of threads for each channel of the first output (T, N, C, L)."""
    launch.teams(
        "batch_norm", kernel, outputs[0].shape[2], outputs, inputs, *outputs[0].shape[1:], *numbers
    )


def batch_norm_forward(launch, y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps)."""
    over_channels(launch, "batch_norm_forward", [y, xh, s], [x, gamma, beta], float(eps))


def batch_norm_backward(launch, dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    over_channels(launch, "batch_norm_backward", [dx, dgamma, dbeta], [dy, xh, s, gamma])


def batch_norm_r_forward(launch, ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta)."""
    over_channels(launch, "batch_norm_r_forward", [ry, rxh, rs], [rx, xh, s, gamma, rgamma, rbeta])


def batch_norm_r_backward(launch, rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta."""
    over_channels(
        launch,
        "batch_norm_r_backward",
        [rdx, rdgamma, rdbeta],
        [dy, rdy, xh, s, rxh, rs, gamma, rgamma],
    )
