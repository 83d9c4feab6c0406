"""Forward formulas of losses of real targets and of weighted classes, for one task.

f is the framework, z (N, D) the outputs of one task; see formulas.py.
"""

from math import log, pi

from refmaml import layers


def softplus(f, x):
    """log(1 + e^x)."""
    return f.xp.logaddexp(x, f.xp.zeros_like(x))


def scale_of(loss, N, D):
    """The factor in front of the sum over N examples of D real targets."""
    return {"mean": 1 / (N * D), "sum": 1, "sum/K": 1 / N}[loss.reduction]


def binary_cross_entropy(f, loss, z, targets):
    p = loss.pos_weight
    p = f.constant(p, z) if isinstance(p, tuple) else 1 if p is None else p
    terms = (1 - targets) * softplus(f, z) + p * targets * softplus(f, -z)
    return scale_of(loss, *z.shape) * terms.sum()


def huber(f, loss, z, targets):
    e, delta = z - targets, loss.delta
    e = f.xp.where(e < 0, -e, e)
    terms = f.xp.where(e <= delta, e * e / 2, delta * (e - delta / 2))
    return scale_of(loss, *z.shape) * terms.sum()


def gaussian(f, loss, z, targets):
    D = targets.shape[1]
    mean, log_variance = z[:, :D], z[:, D:]
    terms = log_variance + (mean - targets) ** 2 / f.xp.exp(log_variance)
    constant = log(2 * pi) if loss.full else 0
    return scale_of(loss, *targets.shape) * (terms + constant).sum() / 2


def bounded_gaussian(f, loss, z, targets):
    D = targets.shape[1]
    sigma = loss.floor + (1 - loss.floor) * softplus(f, z[:, D:])
    terms = f.xp.log(sigma) + ((targets - z[:, :D]) / sigma) ** 2 / 2
    constant = log(2 * pi) / 2 if loss.full else 0
    return scale_of(loss, *targets.shape) * (terms + constant).sum()


def weighted_cross_entropy(f, loss, z, labels):
    N, C = z.shape
    shifted = z - f.xp.amax(z, axis=1, keepdims=True)
    log_p = shifted - f.xp.log(f.xp.exp(shifted).sum(axis=1, keepdims=True))
    w, e = f.constant(loss.weight or (1.0,) * C, z), loss.label_smoothing
    at_label = log_p[f.xp.arange(N), labels]
    total = (1 - e) * (w[labels] * at_label).sum() + e / C * (w * log_p).sum()
    return -total * {"mean": 1 / w[labels].sum(), "sum": 1, "sum/K": C / N}[loss.reduction]


LOSSES = {
    layers.BCEWithLogits: binary_cross_entropy,
    layers.Huber: huber,
    layers.GaussianNLL: gaussian,
    layers.BoundedGaussianNLL: bounded_gaussian,
    layers.WeightedCrossEntropy: weighted_cross_entropy,
}
