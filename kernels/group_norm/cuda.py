"""Normalisation over groups of one example on a GPU, by the kernels of group_norm.cu.

Not run on a GPU yet.
"""

__all__ = [
    "group_norm_forward",
    "group_norm_backward",
    "group_norm_r_forward",
    "group_norm_r_backward",
]


def over_groups(launch, kernel, outputs, inputs, s, gamma, *numbers):
    """One team of threads for each group of each example of a task."""
    _, N, C, L = outputs[0].shape
    G, M = s.shape[2], C // s.shape[2] * L
    sharing = L // gamma.shape[2]  # positions that share an entry of gamma
    launch.teams("group_norm", kernel, N * G, outputs, inputs, G, M, sharing, *numbers)


def over_parameters(launch, kernel, outputs, inputs):
    """One team of threads for each entry of gamma (T, C, A)."""
    (_, C, A), (_, N, _, L) = outputs[0].shape, inputs[0].shape
    launch.teams("group_norm", kernel, C * A, outputs, inputs, N, C * A, L // A)


def group_norm_forward(launch, y, xh, s, x, gamma, beta, eps):
    """Fills y, the normalised input xh, and s = 1 / sqrt(var + eps)."""
    inputs = [x, gamma, beta]
    over_groups(launch, "group_norm_forward", [y, xh, s], inputs, s, gamma, float(eps))


def group_norm_backward(launch, dx, dgamma, dbeta, dy, xh, s, gamma):
    """Fills dx, dgamma = sum dy xh, dbeta = sum dy."""
    over_groups(launch, "group_norm_backward", [dx], [dy, xh, s, gamma], s, gamma)
    over_parameters(launch, "group_norm_parameters_backward", [dgamma, dbeta], [dy, xh])


def group_norm_r_forward(launch, ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    """Fills ry, rxh and rs along (rx, rgamma, rbeta)."""
    inputs = [rx, xh, s, gamma, rgamma, rbeta]
    over_groups(launch, "group_norm_r_forward", [ry, rxh, rs], inputs, s, gamma)


def group_norm_r_backward(launch, rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    """Fills rdx, rdgamma, rdbeta."""
    inputs = [dy, rdy, xh, s, rxh, rs, gamma, rgamma]
    over_groups(launch, "group_norm_r_backward", [rdx], inputs, s, gamma)
    inputs = [dy, rdy, xh, rxh]
    over_parameters(launch, "group_norm_parameters_r_backward", [rdgamma, rdbeta], inputs)
