"""Kernel sets with a known mistake in one operation, each made from a right kernel set.

Each function takes a right kernel set and returns a wrong one.
"""

from itertools import cycle

import numpy as np

from refmaml.doctor.joint_statistics import over_all_tasks


def constant_statistics(right, statistics=None):
    """Batch-norm whose mean and variance are constants.

    s = 1 / sqrt(var + eps), xh = s (x - mean), and the adjoints of mean and var are 0.

    statistics   x -> (mean, var), each (1 or T, C); None: the batch's own, detached
    """

    def across(a):
        return a[:, None, :, None]

    def forward(y, xh, s, x, gamma, beta, eps):
        mean, var = (statistics or batch_statistics)(x)
        s[...] = 1 / np.sqrt(var + eps)
        xh[...] = across(s) * (x - across(mean))
        y[...] = across(gamma) * xh + across(beta)

    def backward(dx, dgamma, dbeta, dy, xh, s, gamma):
        dgamma[...], dbeta[...] = (dy * xh).sum(axis=(1, 3)), dy.sum(axis=(1, 3))
        dx[...] = across(s * gamma) * dy

    def r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
        rs[...], rxh[...] = 0, across(s) * rx
        ry[...] = across(rgamma) * xh + across(gamma) * rxh + across(rbeta)

    def r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
        rdgamma[...], rdbeta[...] = (rdy * xh + dy * rxh).sum(axis=(1, 3)), rdy.sum(axis=(1, 3))
        rdx[...] = across(s) * (across(rgamma) * dy + across(gamma) * rdy)

    return right.replace(
        batch_norm_forward=forward,
        batch_norm_backward=backward,
        batch_norm_r_forward=r_forward,
        batch_norm_r_backward=r_backward,
    )


def batch_statistics(x):
    """(mean, var) of each channel, (T, C)."""
    return x.mean(axis=(1, 3)), x.var(axis=(1, 3))


def running_statistics(right):
    """Evaluation mode on a fresh module: mean 0, variance 1."""

    def initial(x):
        return np.zeros((1, x.shape[2])), np.ones((1, x.shape[2]))

    return constant_statistics(right, initial)


def unbiased_variance(right):
    """c = n / (n - 1) times the variance.

    1 / sqrt(c var + eps) = 1 / sqrt(var + eps / c) / sqrt(c): the right kernels with
    another eps and gamma.
    """

    def c(x):
        n = x.shape[1] * x.shape[3]
        return n / (n - 1)

    def forward(y, xh, s, x, gamma, beta, eps):
        right.batch_norm_forward(y, xh, s, x, gamma / c(x) ** 0.5, beta, eps / c(x))

    def backward(dx, dgamma, dbeta, dy, xh, s, gamma):
        right.batch_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma / c(dy) ** 0.5)
        dgamma /= c(dy) ** 0.5

    def r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
        right.batch_norm_r_forward(
            ry, rxh, rs, rx, xh, s, gamma / c(rx) ** 0.5, rgamma / c(rx) ** 0.5, rbeta
        )

    def r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
        root = c(dy) ** 0.5
        right.batch_norm_r_backward(
            rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma / root, rgamma / root
        )
        rdgamma /= root

    return right.replace(
        batch_norm_forward=forward,
        batch_norm_backward=backward,
        batch_norm_r_forward=r_forward,
        batch_norm_r_backward=r_backward,
    )


def other_eps(value):
    """Batch-norm with another epsilon."""

    def wrong(right):
        def forward(y, xh, s, x, gamma, beta, eps):
            right.batch_norm_forward(y, xh, s, x, gamma, beta, value)

        return right.replace(batch_norm_forward=forward)

    return wrong


def lost_activation(right):
    """No second derivative of activation functions: f'' is taken as 0."""

    def r_backward(rdx, dy, rdy, x, rx, function):
        right.activation_backward(rdx, rdy, x, function)

    return right.replace(activation_r_backward=r_backward)


def lost_pooling(right):
    """No second derivative through max-pooling: the tangent of its output is 0."""

    def gather(ry, *arguments):
        ry[...] = 0

    return right.replace(max_pool2d_gather=gather)


def constant_probabilities(right):
    """Softmax without diag(p) - p p': p constant in the second derivative."""

    def r_backward(rdz, *arguments):
        rdz[...] = 0

    return right.replace(cross_entropy_r_backward=r_backward)


def support_statistics(net, phi, x, unbiased=True):
    """The net with query points normalised by the support set x at phi.

    Batch-norm with momentum 1 has these statistics when it is put into evaluation mode;
    its running variance is the unbiased one.
    """
    kept = []

    def recorded(y, xh, s, x, gamma, beta, eps):
        n = x.shape[1] * x.shape[3]
        mean, var = batch_statistics(x)
        kept.append((mean, var * (n / (n - 1) if unbiased else 1)))
        net.kernels.batch_norm_forward(y, xh, s, x, gamma, beta, eps)

    recording = net.with_kernels(net.kernels.replace(batch_norm_forward=recorded))
    recording.forward(recording.parameters.views(phi), x, keep=False)
    layer = cycle(kept)  # the batch-norm layers come in the same order in every pass
    return net.with_kernels(constant_statistics(net.kernels, lambda x: next(layer)))


WRONG = {
    "statistics over all tasks": over_all_tasks,
    "detached statistics": constant_statistics,
    "running statistics": running_statistics,
    "unbiased variance": unbiased_variance,
    "eps 1e-5": other_eps(1e-5),
    "eps 1e-3": other_eps(1e-3),
    "eps 1e-2": other_eps(1e-2),
    "lost pooling": lost_pooling,
    "lost activation": lost_activation,
    "constant probabilities": constant_probabilities,
}
