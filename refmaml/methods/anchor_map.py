"""The map from iMAML's anchor theta_0 to the solution theta*, in one dimension.

theta*(theta_0) is the stationary point of F(w) = f(w) + (lambda/2) (w - theta_0)^2 that
the inner solver reaches from theta_0. As a function of theta_0 it is a staircase: it
follows one minimum of f, then jumps to the next. Between the jumps the implicit
function theorem gives its slope, 1 / (1 + f''(theta*)/lambda): a sharp minimum is a
flat stair.
"""

from typing import Any, NamedTuple

import numpy as np

from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.gradient_descent import gradient_descent
from refmaml.methods.imaml import IMAML
from refmaml.model import Net


class AnchorMap(NamedTuple):
    """For each anchor, arrays (S,).

    phi       theta*, the solution of the inner problem
    slope     d theta* / d theta_0 = 1 / (1 + f''(theta*)/lambda)
    residual  |F'(theta*)| / |lambda (theta* - theta_0)|: 0 at an exact solution
    """

    phi: Array
    slope: Array
    residual: Array


def anchor_map(net: Net, anchors: Array, x: Array, y: Array, method: IMAML) -> AnchorMap:
    """theta* and d theta* / d theta_0 for each anchor, by iMAML's own inner solver.

    net      a model of one parameter, such as ScalarFunction
    anchors  theta_0, (S,), in float64 or complex128; all S are solved side by side
    x, y     the support set of one task, with its task axis: (1, ...)
    method   IMAML(...) with solver="gradient_descent" gives lambda and the solver's
             settings. Its steps follow the slope downhill and pass no minimum if
             inner_lr <= 1 / (max|f''| + lambda).
    Raises ArgumentError for other arguments, NonFiniteError where f overflows.
    Source: Rajeswaran, Finn, Kakade, Levine 2019, eq. 3 and lemma 1.
    """
    expect(net.num_params == 1, "net", "a model of one parameter", f"{net.num_params}")
    expect(anchors.ndim == 1, "anchors", "shape (anchors,)", f"{anchors.shape}")
    expect(len(x) == 1, "x", "the support set of one task, (1, ...)", f"{x.shape}")
    wanted = 'IMAML with solver="gradient_descent"'
    solver = getattr(method, "solver", None)
    expect(solver == "gradient_descent", "method", wanted, lambda: repr(method))
    count, strength = len(anchors), method.regularization
    xs, ys = (np.repeat(a, count, axis=0) for a in (x, y))
    mask: Any = np.ones(1)
    phi, support, residual = gradient_descent(
        net, anchors[:, None], xs, ys, strength, mask, method, "the anchor map"
    )
    curvature = net.hvp(support, np.ones((count, 1)))[:, 0]
    return AnchorMap(phi[:, 0], 1 / (1 + curvature / strength), residual)
