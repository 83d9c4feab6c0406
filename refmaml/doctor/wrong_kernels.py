"""Kernels with a known mistake in one operation, as functions of a right kernel set: what batch-norm, pooling and the loss get wrong."""

import numpy as np


def constant_statistics(right, statistics=None):
    """Batch-norm whose mean and variance are constants: s = 1 / sqrt(var + eps), xh = s (x - mean), and nothing flows through either.

    statistics   x -> (mean, var), each (1 or T, C); None: the batch's own values, detached
    """

    def across(a):
        return a[:, None, :, None]

    def forward(y, xh, s, x, gamma, beta, eps):
        mean, var = (
            (x.mean(axis=(1, 3)), x.var(axis=(1, 3))) if statistics is None else statistics(x)
        )
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


def running_statistics(right):
    """Evaluation mode on a fresh module: mean 0, variance 1."""
    return constant_statistics(
        right, lambda x: (np.zeros((1, x.shape[2])), np.ones((1, x.shape[2])))
    )


def unbiased_variance(right):
    """n / (n - 1) times the variance. With c = n / (n - 1), 1 / sqrt(c var + eps) = 1 / sqrt(var + eps / c) / sqrt(c): the right kernels
    with another eps and gamma."""

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


def lost_pooling(right):
    """No second derivative through max-pooling: the tangent of its output is 0."""

    def gather(ry, *arguments):
        ry[...] = 0

    return right.replace(max_pool2d_gather=gather)


def constant_probabilities(right):
    """Softmax whose probabilities are constants in the second derivative: diag(p) - p p' is lost."""

    def r_backward(rdz, *arguments):
        rdz[...] = 0

    return right.replace(cross_entropy_r_backward=r_backward)


def support_statistics(net, phi, x, unbiased=True):
    """The net for query points that are normalised with the statistics of the support set x at phi: what batch-norm with momentum 1 has
    kept when it is put into evaluation mode. Its running variance is the unbiased one."""
    kept = []

    def recorded(y, xh, s, x, gamma, beta, eps):
        n = x.shape[1] * x.shape[3]
        kept.append((x.mean(axis=(1, 3)), x.var(axis=(1, 3)) * (n / (n - 1) if unbiased else 1)))
        net.kernels.batch_norm_forward(y, xh, s, x, gamma, beta, eps)

    recording = net.with_kernels(net.kernels.replace(batch_norm_forward=recorded))
    recording.forward(recording.parameters.views(phi), x, keep=False)
    calls = iter(range(10**9))
    return net.with_kernels(
        constant_statistics(net.kernels, lambda x: kept[next(calls) % len(kept)])
    )


WRONG = {
    "detached statistics": constant_statistics,
    "running statistics": running_statistics,
    "unbiased variance": unbiased_variance,
    "eps 1e-5": other_eps(1e-5),
    "eps 1e-3": other_eps(1e-3),
    "eps 1e-2": other_eps(1e-2),
    "lost pooling": lost_pooling,
    "constant probabilities": constant_probabilities,
}
