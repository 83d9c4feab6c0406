"""Golden vectors of layers: each pass is that of loops or of the complex step."""

import numpy as np
import pytest
from golden_cases import KNOWN, NETS, along, close, load

from refmaml.golden.problems import batch_of, terms
from refmaml.oracles import complex_step, dense, loops
from refmaml.oracles.tolerance import tolerance


@pytest.mark.parametrize("name", NETS)
def test_layer_passes_are_those_of_loops_and_the_complex_step(golden, name):
    net, a = KNOWN[name].net, load(golden, name)
    theta, v, x, T = a["theta"][None], a["v"][None], a["x_support"], len(a["x_support"])
    limit = tolerance(
        float, max(terms(net, method, batch_of(a)) for method in KNOWN[name].methods.values())
    )
    views, before = net.parameters.views(np.repeat(theta, T, axis=0)), x
    moved = net.parameters.views(complex_step.shifted(theta, v))
    dys, moved_x, rng = (
        adjoints(net, complex_step.shifted(theta, v), a),
        x.astype(complex),
        np.random.default_rng(0),
    )
    for i, layer in enumerate(net.layers):
        y = a[f"y.{i}"]
        close(y, loops.forward(layer, views[i], before), limit)
        moved_x, _ = layer.forward(net.kernels, moved[i], moved_x)
        close(a[f"ry.{i}"], complex_step.derivative(moved_x), limit)
        d = rng.standard_normal(y.shape)
        rest = along(lambda z, i=i: loss_from(net, i, z, a), y, d)
        close((a[f"dy.{i}"] * d).reshape(T, -1).sum(axis=1), rest, limit * np.sqrt(y[0].size))
        close(a[f"rdy.{i}"], complex_step.derivative(dys[i]), limit)
        before = y
    H, G = (
        np.stack([matrix(net, theta[0], x[t : t + 1], a["y_support"][t : t + 1]) for t in range(T)])
        for matrix in (dense.hessian, dense.gauss_newton)
    )
    close(a["support_hvp"], H @ v[0], limit)
    close(a["support_gnvp"], G @ v[0], limit)


def loss_from(net, i, y, a):
    """The loss as a function of the output of layer i."""
    views = net.parameters.views(a["theta"][None])
    for layer, w in zip(net.layers[i + 1 :], views[i + 1 :], strict=True):
        y, _ = layer.forward(net.kernels, w, y)
    return net.loss_function.forward(net.kernels, y, a["y_support"])[0]


def adjoints(net, w, a):
    """dy of every layer at complex parameters, by the backward pass."""
    views = net.parameters.views(w)
    z, saved = net.forward(views, a["x_support"])
    _, kept = net.loss_function.forward(net.kernels, z, a["y_support"])
    return net.backward(views, saved, net.loss_function.backward(net.kernels, kept))[1]
