"""What the page docs/pages/sinusoids.html must compute, by refmaml."""

import numpy as np

import refmaml as rm
from refmaml.oracles.tolerance import tolerance

NAME = "sinusoids"
SETTINGS = [
    {},
    {"steps": 7, "amplitude": 1.2, "phase": 2.5},
    {"steps": 0},
    {"steps": 3, "amplitude": 7.5, "phase": 5},
]
STARTS = ("maml", "erm", "random")
TERMS = 1 + 40 + 40 + 40 + 10  # of an entry of the gradient: two passes, ten points


def same_net():
    return rm.mlp((1, 40, 40, 1), kernels=rm.kernels.reference())


def output(net, w, x):
    """The net's outputs (N,) at the points x (N,)."""
    *_, (_, _, z) = net.layer_outputs(w[None], x.reshape(1, -1, 1))
    return z[0, :, 0]


def curvature(net, w, x, y):
    """The largest eigenvalue of the Hessian in absolute value, by 40 products."""
    primal, v = net.primal(w[None], x, y), np.ones((1, net.num_params))
    for _ in range(40):
        v = net.hvp(primal, v / max(np.linalg.norm(v), 1e-300))
    return float(np.linalg.norm(v))


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    net, alpha = same_net(), 0.01  # as in training
    start = np.array(numbers["weights"]["random"], np.float32)
    yield "the start of training", start, net.init(seed=0), 0
    yield "alpha", numbers["alpha"], alpha, 0
    grid, support = np.array(numbers["grid"]), np.array(numbers["support"])
    x, y = support[None, :, :1], support[None, :, 1:]
    truth = numbers["amplitude"] * np.sin(grid - numbers["phase"])
    inside = np.abs(grid) <= numbers["edge"]
    for name in STARTS:
        theta, growth, page = np.array(numbers["weights"][name]), 1.0, numbers[name]
        for k in range(len(page["inside"])):
            phi = rm.MAML(alpha, k).adapt(net, theta, x, y)[0] if k else theta
            # Rounding of an output is that of 40 terms as large as the largest.
            close = growth * tolerance(float, TERMS * (k + 1)) * 10 * (1 + np.abs(phi).max())
            z = output(net, phi, grid)
            scale = max(1, np.abs(z).max())
            if k == numbers["steps"]:
                yield f"{name}: phi_{k}", page["phi"], phi, close
                yield f"{name}: fit", page["fit"], z, close * scale * 40
            for part, where in (("inside", inside), ("outside", ~inside)):
                errors = z[where] - truth[where]
                allowed = 80 * close * scale * (np.abs(errors).max() + 1)
                yield f"{name}: {part} after {k}", page[part][k], (errors**2).mean(), allowed
            # A step multiplies errors by |1 - alpha s| at most, s a curvature.
            growth *= max(1.0, alpha * curvature(net, phi, x, y) + 1)
        for part in ("inside", "outside"):
            shown = numbers["shown"][f"{name}_{part}"]
            yield f"{name}: {part} shown", shown, page[part][int(numbers["steps"])], 0
    yield from compare_neural_process(numbers)


def neural_process(numbers):
    """(net, method, meta) of the page's CNP; 0 stands for the unused context."""
    page = numbers["weights"]["cnp"]
    (inputs, *hidden, outputs), context = page["decoder"], page["encoder"][-1]
    layers, before = [rm.Context(context)], inputs
    for size in (*hidden, outputs):
        layers += [rm.Linear(before, size), rm.ReLU()]
        before = size
    net = rm.Sequential(layers[:-1], rm.BoundedGaussianNLL(full=True), (1,))
    meta = np.concatenate([np.zeros(context), page["theta"], page["eta"]])
    return net, rm.CNP(tuple(page["encoder"][1:-1])), meta


def compare_neural_process(numbers):
    """As `compare`: the CNP's mean, its standard deviation, and its errors."""
    net, method, meta = neural_process(numbers)
    grid, support = np.array(numbers["grid"]), np.array(numbers["support"])
    phi = method.adapt(net, meta, support[None, :, :1], support[None, :, 1:])
    z = net.forward(net.parameters.views(phi), grid.reshape(1, -1, 1))[0]
    mean, sigma = (a[0, :, 0] for a in net.loss_function.split(net.kernels, z))
    # Two nets of three layers; rounding of a sum is that of its terms' sizes.
    terms = sum(numbers["weights"]["cnp"]["decoder"]) + sum(numbers["weights"]["cnp"]["encoder"])
    close = 100 * tolerance(float, terms) * max(1, np.abs(z).max(), np.abs(phi).max())
    page, truth = numbers["cnp"], numbers["amplitude"] * np.sin(grid - numbers["phase"])
    yield "CNP: mean", page["fit"], mean, close
    yield "CNP: sigma", page["sigma"], sigma, close
    for part, where in (("inside", True), ("outside", False)):
        errors = (mean - truth)[(np.abs(grid) <= numbers["edge"]) == where]
        allowed = 2 * close * (1 + np.abs(errors).max())
        yield f"CNP: {part}", page[part], (errors**2).mean(), allowed
        yield f"CNP: {part} shown", numbers["shown"][f"cnp_{part}"], page[part], 0


PLANTED = {
    "the loss without its factor 2": ("let d = [(2 * (layers", "let d = [(1 * (layers"),
    "ReLU's derivative missing": ("(layers[l][i] > 0 ? b : 0)", "b"),
    "a bias not adapted": ("grad[bias + o] += d[o];", "grad[bias + o] += 0;"),
    "a sum for the mean of the encodings": ("/ points.length);\n}", ");\n}"),
    "a spread without its floor": ("sigma: 0.1 + 0.9 *", "sigma: 0.9 *"),
    "another step size": ("const ALPHA = 0.01", "const ALPHA = 0.02"),
}
DRAGS = {"handle-point4": (0, -40, "support"), "handle-point9": (-10, 50, "support")}
KEYS = {
    ("range-steps", "ARROW_RIGHT"): ("steps", 1),
    ("range-amplitude", "ARROW_LEFT"): ("amplitude", -0.1),
}
