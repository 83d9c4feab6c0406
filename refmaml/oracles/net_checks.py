"""Rungs 2, 3 and 5 for whole nets: gradients, Hessian and Gauss-Newton products."""

import numpy as np

from refmaml.layers.walk import walk
from refmaml.oracles import cases, complex_step, dense, kinks
from refmaml.oracles.tolerance import Check, relative_error, tolerance


def net_terms(net, examples):
    """How many numbers one forward pass sums from end to end for `examples` examples.

    These are the inputs of every layer and all parameters; see tolerance.py.
    """
    terms = sum(np.prod(v.before) * examples for v in walk(net.layers, net.input_shape))
    return int(terms + net.num_params)


def network_checks(net, name, seed=0):
    """Gradient, H v and G v of a whole net against the complex step and dense matrices.

    H is the Hessian of one task's loss, G its Gauss-Newton matrix; u'Hv = v'Hu as well.
    """
    rng = np.random.default_rng(seed)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=1)
    x, y = batch.x_support, batch.y_support
    u, v = rng.standard_normal((2, net.num_params))
    primal = net.primal(theta[None], x, y)
    H, G = dense.hessian(net, theta, x, y), dense.gauss_newton(net, theta, x, y)
    Hu, Hv = (net.hvp(primal, direction[None])[0] for direction in (u, v))
    Gv = net.gauss_newton_product(primal, v[None])[0]
    # u'Hv can cancel to nearly 0, so the error is relative to the largest value it can
    # have.
    scale = np.linalg.norm(u) * np.linalg.norm(Hv)
    gradient = gradient_by_steps(net, theta, x, y)
    rows = [
        ("2 backward", "gradient", "complex step", relative_error(primal.grad[0], gradient)),
        ("3 r_backward", "H v", "dense H", relative_error(Hv, H @ v)),
        ("3 r_backward", "G v", "dense J'HJ", relative_error(Gv, G @ v)),
        ("5 algebra", "u'Hv = v'Hu", "symmetry", abs(u @ Hv - v @ Hu) / scale),
    ]
    limit = tolerance(float, net_terms(net, x.shape[1]))
    margin = kinks.net_margin(net, theta[None], x)
    return [
        Check(rung, name, quantity, oracle, error, limit, margin)
        for rung, quantity, oracle, error in rows
    ]


def gradient_by_steps(net, theta, x, y):
    """d loss / d theta (P,) of one task, entry by entry, by the complex step."""

    def loss(W):
        X, Y = (np.broadcast_to(a, (len(W), *a.shape[1:])) for a in (x, y))
        return net.loss(W, X, Y)

    return complex_step.gradient(loss, theta)
