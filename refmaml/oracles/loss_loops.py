"""Every loss as plain loops over tasks, examples and single numbers.

As loops.py has the layers: slow, and as simple as possible.
"""

from math import exp, log, pi

import numpy as np


def cross_entropy(loss, z, labels):
    """(T,): the scaled sum of -log softmax at the label, by the definition."""
    T, N, C = z.shape
    scale = {"mean": 1 / N, "sum": 1, "sum/K": 1 / (N / C)}[loss.reduction]
    return np.array(
        [
            scale
            * sum(-log(exp(z[t, n, labels[t, n]]) / sum(exp(v) for v in z[t, n])) for n in range(N))
            for t in range(T)
        ]
    )


def squared_error(loss, z, targets):
    """(T,): the scaled sum of squares."""
    T, N, D = z.shape
    scale = loss.factor * {"mean": 1 / (N * D), "sum": 1, "sum/K": 1 / N}[loss.reduction]
    return np.array(
        [
            scale * sum((z[t, n, d] - targets[t, n, d]) ** 2 for n in range(N) for d in range(D))
            for t in range(T)
        ]
    )


def scaled_sum(loss, targets, term):
    """(T,): the scaled sum of term(t, n, d) over examples and real targets."""
    T, N, D = targets.shape
    scale = {"mean": 1 / (N * D), "sum": 1, "sum/K": 1 / N}[loss.reduction]
    return np.array(
        [scale * sum(term(t, n, d) for n in range(N) for d in range(D)) for t in range(T)]
    )


def binary_cross_entropy(loss, z, targets):
    """(T,): -p t log s - (1 - t) log(1 - s) with s = sigmoid(z)."""

    def term(*place):
        s, t, p = 1 / (1 + exp(-z[place])), targets[place], loss.pos_weight
        p = 1 if p is None else p[place[2]] if isinstance(p, tuple) else p
        return -p * t * log(s) - (1 - t) * log(1 - s)

    return scaled_sum(loss, targets, term)


def huber(loss, z, targets):
    """(T,): half squares up to delta, straight lines beyond."""

    def term(*place):
        e = abs(z[place] - targets[place])
        return e**2 / 2 if e <= loss.delta else loss.delta * (e - loss.delta / 2)

    return scaled_sum(loss, targets, term)


def gaussian(loss, z, targets):
    """(T,): -log of the normal density, with log(2 pi) / 2 only where it is full."""
    D = targets.shape[2]

    def term(t, n, d):
        mean, variance = z[t, n, d], exp(z[t, n, D + d])
        e = targets[t, n, d] - mean
        return (log(variance) + e**2 / variance + (log(2 * pi) if loss.full else 0)) / 2

    return scaled_sum(loss, targets, term)


def bounded_gaussian(loss, z, targets):
    """(T,): `gaussian` with sigma = floor + (1 - floor) log(1 + e^s)."""
    D = targets.shape[2]

    def term(t, n, d):
        sigma = loss.floor + (1 - loss.floor) * log(1 + exp(z[t, n, D + d]))
        e = (targets[t, n, d] - z[t, n, d]) / sigma
        return log(sigma) + e**2 / 2 + (log(2 * pi) / 2 if loss.full else 0)

    return scaled_sum(loss, targets, term)


def weighted_cross_entropy(loss, z, labels):
    """(T,): (1 - e) w_y (-log p_y) + e / C sum_c w_c (-log p_c), scaled."""
    T, N, C = z.shape
    e, w = loss.label_smoothing, loss.weight or [1] * C
    losses = []
    for t in range(T):
        total = 0
        for n in range(N):
            log_p = [v - log(sum(exp(u) for u in z[t, n])) for v in z[t, n]]
            y = labels[t, n]
            total -= (1 - e) * w[y] * log_p[y] + e / C * sum(w[c] * log_p[c] for c in range(C))
        over = {"mean": sum(w[y] for y in labels[t]), "sum": 1, "sum/K": N / C}
        losses.append(total / over[loss.reduction])
    return np.array(losses)


LOSSES = {
    "CrossEntropy": cross_entropy,
    "MSE": squared_error,
    "BCEWithLogits": binary_cross_entropy,
    "Huber": huber,
    "GaussianNLL": gaussian,
    "BoundedGaussianNLL": bounded_gaussian,
    "WeightedCrossEntropy": weighted_cross_entropy,
}


def forward(loss, z, y):
    """(T,): the value of a loss for each task."""
    return LOSSES[type(loss).__name__](loss, z, y)
