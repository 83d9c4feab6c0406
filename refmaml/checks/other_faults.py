"""Known mistakes in softmax, linear layers and elementwise functions."""

import numpy as np

from refmaml import kernels, layers
from refmaml.checks.fault import Fault

JACOBIAN = "dx = p (dy - sum p dy): the Jacobian is diag(p) - p p'"


def exponentials(x, axis):
    """softmax(x) over an axis."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def softmax_faults(case):
    """The Faults of Softmax."""
    axis, x, dy = case.layer.dim, case.x, case.dy
    p = exponentials(x, axis)

    def total(a):
        return a.sum(axis, keepdims=True)

    yield Fault("the diagonal alone is used: p (1 - p) dy", JACOBIAN, {"x": p * (1 - p) * dy})
    yield Fault("the term p sum p dy is missing", JACOBIAN, {"x": p * dy})
    yield Fault("p is missing in front", JACOBIAN, {"x": dy - total(p * dy)})
    yield Fault("the sum lacks p: p (dy - sum dy)", JACOBIAN, {"x": p * (dy - total(dy))})
    yield Fault("it is the backward pass of log-softmax", JACOBIAN, {"x": dy - p * total(dy)})
    yield Fault("the sum is a mean", JACOBIAN, {"x": p * (dy - (p * dy).mean(axis, keepdims=True))})
    yield Fault("the term p sum p dy has the wrong sign", JACOBIAN, {"x": p * (dy + total(p * dy))})
    yield from other_axes(case, lambda q, a: q * (dy - (q * dy).sum(a, keepdims=True)))


def log_softmax_faults(case):
    """The Faults of LogSoftmax."""
    axis, x, dy = case.layer.dim, case.x, case.dy
    p = exponentials(x, axis)

    def total(a):
        return a.sum(axis, keepdims=True)

    fix = "dx = dy - p sum dy"
    yield Fault("the term p sum dy is missing", fix, {"x": dy})
    yield Fault("the diagonal alone is used: (1 - p) dy", fix, {"x": (1 - p) * dy})
    yield Fault("the sum takes p dy, not dy", fix, {"x": dy - p * total(p * dy)})
    yield Fault("it is the backward pass of softmax", fix, {"x": p * (dy - total(p * dy))})
    yield Fault("the sum is a mean", fix, {"x": dy - p * dy.mean(axis, keepdims=True)})
    yield from other_axes(case, lambda q, a: dy - q * dy.sum(a, keepdims=True))


def other_axes(case, backward):
    """The same over every other axis."""
    x, right = case.x, case.layer.dim % case.x.ndim
    for axis in range(x.ndim):
        if axis != right:
            name = f"the softmax is over axis {axis} of x, not axis {right}"
            yield Fault(name, f"dim = {right}", {"x": backward(exponentials(x, axis), axis)})


def linear_faults(case):
    """The Faults of Linear."""
    x, w, dy = case.x, case.params["weight"], case.dy
    if w.shape[0] == w.shape[1]:
        yield Fault("the weight is transposed", "dx = dy @ w", {"x": dy @ w.T, "weight": x.T @ dy})
    yield Fault("the bias is added to the sum", "dw = dy' x", {"weight": dy.T @ (x + 1)})


def elementwise_faults(case):
    """The Faults of activations: dx = f'(x) dy with another f'."""
    x, dy, y, layer = case.x, case.dy, case.y, case.layer
    s = 1 / (1 + np.exp(-x))
    if isinstance(layer, layers.Tanh):
        fix = "dx = (1 - y^2) dy, with y = tanh(x)"
        yield Fault("1 - x^2 is used, with the input for the output", fix, {"x": (1 - x**2) * dy})
        yield Fault("1 - y is used, without the square", fix, {"x": (1 - y) * dy})
        yield Fault("tanh is applied twice: 1 - tanh(y)^2", fix, {"x": (1 - np.tanh(y) ** 2) * dy})
    if isinstance(layer, layers.Sigmoid):
        fix = "dx = y (1 - y) dy, with y = sigmoid(x)"
        yield Fault(
            "x (1 - x) is used, with the input for the output", fix, {"x": x * (1 - x) * dy}
        )
        yield Fault("the factor 1 - y is missing", fix, {"x": y * dy})
        t = 1 / (1 + np.exp(-y))
        yield Fault("sigmoid is applied twice", fix, {"x": t * (1 - t) * dy})
    if isinstance(layer, layers.SiLU):
        fix = "dx = s (1 + x (1 - s)) dy, with s = sigmoid(x)"
        yield Fault("the sigmoid is taken as a constant", fix, {"x": s * dy})
    if isinstance(layer, layers.Softplus):
        yield Fault(
            "it is the derivative of sigmoid", "dx = sigmoid(x) dy", {"x": s * (1 - s) * dy}
        )
    if isinstance(layer, layers.GELU):
        yield from gelu_faults(case)
    if isinstance(layer, layers.ReLU | layers.LeakyReLU):
        slope = getattr(layer, "negative_slope", 0.0)
        fix = "compare the input with 0, not its adjoint"
        wrong = np.where(dy > 0, 1.0, slope) * dy
        yield Fault("the sign of dy is used, not that of x", fix, {"x": wrong})
        yield Fault("the derivative is 1 everywhere", fix, {"x": dy})
        yield Fault("the sides are exchanged", fix, {"x": np.where(x > 0, slope, 1.0) * dy})
    yield Fault("dy is handed back as it is", "dx = f'(x) dy", {"x": dy.copy()})


def gelu_faults(case):
    """The other form of GELU."""
    other = layers.GELU("none" if case.layer.approximate == "tanh" else "tanh")
    dx = other.backward(kernels.reference(), {}, {}, case.x[None], case.dy[None])[0]
    name = f"it is the derivative of the other form, approximate={other.approximate!r}"
    yield Fault(name, f"like=rm.GELU({other.approximate!r}) if that is meant", {"x": dx})
