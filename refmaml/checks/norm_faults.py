"""Known mistakes in normalisation: batch, group, instance and layer norm.

With xh = (x - <x>) s, s = 1 / sqrt(<(x - <x>)^2> + eps) and <.> the mean over the
numbers that share their statistics,

    dx = s (g - <g> - xh <g xh>), g = gamma dy;  dgamma = sum dy xh;  dbeta = sum dy.
"""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from refmaml import layers
from refmaml.checks.fault import Fault

FORMULA = "dx = s (g - <g> - xh <g xh>), with g = gamma dy"
NORMS = (layers.BatchNorm2d, layers.GroupNorm, layers.InstanceNorm2d, layers.LayerNorm)
AXES = {
    (0,): "the batch alone",
    (2, 3): "each image of one channel alone (instance norm)",
    (1, 2, 3): "each example alone (layer norm)",
    (1,): "the channels alone",
    (0, 1): "batch and channels",
    (0, 1, 2, 3): "all channels together",
    (0, 2, 3): "the batch and the pixels (batch norm)",
    (0, 2): "batch and rows, not columns",
    (0, 3): "batch and columns, not rows",
}


class Norm(NamedTuple):
    """A normalisation on one input.

    mean    a -> the mean over the numbers with common statistics, in a's shape
    count   how many numbers these are
    gamma   in x's shape; summed: axes over which dgamma and dbeta are sums
    """

    mean: Any
    count: int
    gamma: np.ndarray
    summed: tuple
    eps: float

    def dx(self, x, dy, mean_term=1.0, variance_term=1.0, parts=None):
        """dx with weights of its two terms."""
        xh, s = parts or self.parts(x)
        g = self.gamma * dy
        return s * (g - mean_term * self.mean(g) - variance_term * xh * self.mean(g * xh))

    def parts(self, x, ddof=0):
        """(xh, s)."""
        c = x - self.mean(x)
        variance = self.mean(c**2) * self.count / (self.count - ddof)
        s = 1 / np.sqrt(variance + self.eps)
        return c * s, s

    def outputs(self, x, dy):
        """{"x", "weight", "bias"}."""
        xh, _ = self.parts(x)
        return {"x": self.dx(x, dy), **self.sums(dy, xh)}

    def sums(self, dy, xh):
        """{"weight", "bias"}."""
        return {"weight": (dy * xh).sum(self.summed), "bias": dy.sum(self.summed)}


def norm_of(case):
    """The Norm of a case."""
    layer, x = case.layer, case.x
    if isinstance(layer, layers.LayerNorm):
        own = layer.normalized_shape
        own = tuple(own) if isinstance(own, tuple | list) else (own,)
        axes = tuple(range(x.ndim - len(own), x.ndim))
        summed = tuple(range(x.ndim - len(own)))
        return Norm(over_axes(axes), int(np.prod(own)), gamma_of(case, own), summed, layer.eps)
    channels = (1, -1, *(1,) * (x.ndim - 2))
    summed = (0, *range(2, x.ndim))
    gamma = gamma_of(case, channels)
    if isinstance(layer, layers.GroupNorm):
        G = layer.num_groups
        return Norm(over_groups(G), x[0].size // G, gamma, summed, layer.eps)
    axes = summed if isinstance(layer, layers.BatchNorm2d) else tuple(range(2, x.ndim))
    count = int(np.prod([x.shape[a] for a in axes]))
    return Norm(over_axes(axes), count, gamma, summed, layer.eps)


def gamma_of(case, shape):
    """gamma in the shape of x; 1 where the layer has none."""
    gamma = case.params.get("weight")
    return np.ones(case.x.shape) if gamma is None else gamma.reshape(shape) + 0 * case.x


def over_axes(axes):
    """a -> its mean over axes, kept."""
    return lambda a: a.mean(axes, keepdims=True) + 0 * a


def over_groups(G):
    """a (N, C, ...) -> its mean over each of G groups of channels of one example."""

    def mean(a):
        grouped = a.reshape(len(a), G, -1)
        return (grouped.mean(2, keepdims=True) + 0 * grouped).reshape(a.shape)

    return mean


def norm_faults(case):
    """The Faults of a normalisation."""
    norm, x, dy = norm_of(case), case.x, case.dy
    yield from term_faults(norm, x, dy)
    yield from scale_faults(norm, x, dy)
    yield from axis_faults(case, norm)


def term_faults(norm, x, dy):
    """Terms that are missing or not averaged."""
    n = norm.count
    terms = {
        "the mean term is missing": (0, 1),
        "the variance term is missing": (1, 0),
        "the statistics are taken as constants (mean and variance term are missing)": (0, 0),
        "the mean term is a sum, not divided by n": (n, 1),
        "the variance term is a sum, not divided by n": (1, n),
        "mean and variance term are sums, not divided by n": (n, n),
        "the variance term has twice its size": (1, 2),
        "the variance term has half its size": (1, 0.5),
        "the variance term has the wrong sign": (1, -1),
        "the mean term has the wrong sign": (-1, 1),
        "the variance term is divided by n - 1, not n": (1, n / (n - 1)),
        "the mean term is divided by n - 1, not n": (n / (n - 1), 1),
    }
    for name, (mean, variance) in terms.items():
        yield Fault(name, FORMULA, {"x": norm.dx(x, dy, mean, variance)})


def scale_faults(norm, x, dy):
    """Another s, another gamma, another xh."""
    n, (xh, s) = norm.count, norm.parts(x)
    biased = norm.parts(x, ddof=1)
    name = "the variance is divided by n - 1, not n (ddof = 1)"
    unbiased = norm.dx(x, dy, 1, n / (n - 1), biased)
    yield Fault(name, "var = ((x - mean)**2).mean()", {"x": unbiased, **norm.sums(dy, biased[0])})
    yield Fault(name, "var = ((x - mean)**2).mean()", {"x": norm.dx(x, dy, parts=biased)})
    c, g = x - norm.mean(x), norm.gamma * dy
    sd = np.sqrt(norm.mean(c**2))
    o = sd + norm.eps
    outside = c / o, 1 / o
    name, fix = "eps is added outside the root", "1 / sqrt(var + eps), not 1 / (sqrt(var) + eps)"
    exact = (g - norm.mean(g)) / o - c * norm.mean(g * c) / (sd * o**2)
    yield Fault(name, fix, {"x": exact, **norm.sums(dy, outside[0])})
    yield Fault(name, fix, {"x": norm.dx(x, dy, parts=outside)})
    bare = c / sd, 1 / sd
    name = "eps is left out"
    yield Fault(name, fix, {"x": norm.dx(x, dy, parts=bare), **norm.sums(dy, bare[0])})
    name = "gamma is left out"
    yield Fault(name, "g = gamma dy", {"x": norm._replace(gamma=np.ones(x.shape)).dx(x, dy)})
    name = "s is left out"
    yield Fault(name, FORMULA, {"x": norm.dx(x, dy) / s})
    yield Fault("s is squared", FORMULA, {"x": norm.dx(x, dy) * s})
    name = "the sum takes x, not the normalised xh"
    yield Fault(name, "dgamma = sum dy xh", {"weight": (dy * x).sum(norm.summed)})
    name = "the sum takes x - mean, not the normalised xh"
    yield Fault(name, "dgamma = sum dy xh", {"weight": (dy * xh / s).sum(norm.summed)})


def axis_faults(case, norm):
    """Statistics over other axes."""
    x, dy = case.x, case.dy
    for size in range(1, x.ndim + 1):
        for axes in combinations(range(x.ndim), size):
            other = norm._replace(
                mean=over_axes(axes), count=int(np.prod([x.shape[a] for a in axes]))
            )
            if np.allclose(other.mean(x), norm.mean(x)):
                continue
            where = AXES.get(axes) if x.ndim == 4 else None
            name = f"the statistics are over the wrong axes: {where or f'axes {axes}'}"
            yield Fault(name, "take mean and variance over the layer's axes", other.outputs(x, dy))
