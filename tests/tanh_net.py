"""A tanh net with its gradient written out, for tests of rm.check_gradient."""

import numpy as np

import refmaml as rm

R = np.random.default_rng(0)
X, Y = R.standard_normal((7, 3)), R.standard_normal((7, 2))
PARAMS = {
    "in.weight": R.standard_normal((3, 8)),
    "in.bias": np.zeros(8),
    "out.weight": R.standard_normal((8, 2)),
}


def tanh_net(params, batch):
    """The gradient of the mean square error of a tanh net, and the error."""
    x, y = batch
    h = np.tanh(x @ params["in.weight"] + params["in.bias"])
    e = h @ params["out.weight"] - y
    de = 2 * e / e.size
    dz = de @ params["out.weight"].T * (1 - h * h)
    return {"in.weight": x.T @ dz, "in.bias": dz.sum(0), "out.weight": h.T @ de}, (e**2).mean()


def check(change, **options):
    """check_gradient of tanh_net with a gradient that `change` spoils in place."""

    def fn(params, batch):
        g, loss = tanh_net(params, batch)
        return change(g) or g, loss

    return rm.check_gradient(fn, PARAMS, (X, Y), **options)
