"""The comparisons of the ladder: each returns rows that say what was compared, how far apart it was, and how far it may be."""
from typing import NamedTuple

import numpy as np

from refmaml.layers import Context, FiLM
from refmaml.oracles import cases, complex_step, dense, kinks, loops, unrolled
from refmaml.oracles.tolerance import relative_error, tolerance


class Check(NamedTuple):
    """rung: where on the ladder. subject: the layer, loss or method. quantity: what of it. oracle: what it was held against.
    error and tolerance are relative; margin is the distance from the nearest kink, where there are kinks."""
    rung: str
    subject: str
    quantity: str
    oracle: str
    error: float
    tolerance: float
    margin: float = np.inf

    @property
    def passed(self):
        return bool(self.error <= self.tolerance)


def flat(w):
    """A dict of arrays (T, ...) as one matrix (T, P)."""
    return np.concatenate([a.reshape(len(a), -1) for a in w.values()], axis=1)


def named(flat_w, like):
    """The inverse of `flat`."""
    parts = np.split(flat_w, np.cumsum([a[0].size for a in like.values()])[:-1], axis=1)
    return {name: p.reshape(len(p), *a.shape[1:]) for p, (name, a) in zip(parts, like.items(), strict=True)}


def empty_like(w, tasks, dtype):
    """Arrays for a backward pass to fill, poisoned with NaN so that an entry nobody writes is seen."""
    return {name: np.full((tasks, *a.shape[1:]), np.nan, dtype) for name, a in w.items()}


class LayerProbe:
    """One layer on one set of inputs, with everything its four passes need drawn at random."""

    def __init__(self, case, kernels, seed=0, shared=False):
        rng = np.random.default_rng(seed)
        self.layer, self.k = case.layer, kernels
        self.w, self.x = cases.layer_inputs(case, rng)
        if shared:
            self.w = {name: a[:1] for name, a in self.w.items()}
        self.T = len(self.x)
        self.rw = {name: rng.standard_normal(a.shape) for name, a in self.w.items()}
        self.rx = rng.standard_normal(self.x.shape)
        self.y, self.saved = self.layer.forward(kernels, self.w, self.x)
        self.dy, self.rdy = rng.standard_normal(self.y.shape), rng.standard_normal(self.y.shape)
        # No pass of a layer sums more numbers than a task holds in its input, its output or its parameters.
        sizes = [self.x[0].size, self.y[0].size, *(a[0].size for a in self.w.values())]
        self.tolerance = tolerance(float, max(sizes))

    def forward(self, w, x):
        return self.layer.forward(self.k, w, x)[0]

    def backward(self, w, x, dy):
        """(dx, dw) from a fresh forward pass."""
        dw = empty_like(w, len(x), np.result_type(dy, x, *w.values()))
        dx = self.layer.backward(self.k, dw, w, self.layer.forward(self.k, w, x)[1], dy)
        return dx, dw

    def r_passes(self):
        """(ry, rdx, rdw) along (rw, rx, rdy)."""
        ry, rsaved = self.layer.r_forward(self.k, self.w, self.rw, self.saved, self.rx)
        rdw = empty_like(self.w, self.T, float)
        rdx = self.layer.r_backward(self.k, rdw, self.w, self.rw, self.saved, rsaved, self.dy, self.rdy)
        return ry, rdx, rdw

    def gradient_by_steps(self):
        """(dx, dw) of <dy, forward>, entry by entry and task by task, by the complex step on the forward pass."""
        dxs, dws = [], []
        for t in range(self.T):
            wt = {name: a[t if len(a) > 1 else 0][None] for name, a in self.w.items()}
            xt, dyt = self.x[t:t + 1], self.dy[t:t + 1]

            def of_x(X, wt=wt, xt=xt, dyt=dyt):
                return (dyt * self.forward(wt, X.reshape(len(X), *xt.shape[1:]))).reshape(len(X), -1).sum(axis=1)

            def of_w(W, wt=wt, xt=xt, dyt=dyt):
                y = self.forward(named(W, wt), np.broadcast_to(xt, (len(W), *xt.shape[1:])))
                return (dyt * y).reshape(len(W), -1).sum(axis=1)

            dxs.append(complex_step.gradient(of_x, xt.ravel()).reshape(xt.shape[1:]))
            dws.append(complex_step.gradient(of_w, flat(wt)[0]) if wt else np.empty(0))
        return np.array(dxs), np.array(dws)


def layer_checks(case, kernels, seed=0, shared=False):
    """The four passes of one layer: forward against loops, each other pass against the complex step on the pass below it."""
    probe = LayerProbe(case, kernels, seed, shared)
    margin = kinks.layer_margin(case.layer, probe.x)
    repeated = {name: np.broadcast_to(a, (probe.T, *a.shape[1:])) for name, a in probe.w.items()}

    def row(rung, quantity, oracle, value, reference):
        subject = f"{case}{', shared weights' if shared else ''}"
        return Check(rung, subject, quantity, oracle, relative_error(value, reference), probe.tolerance, margin)

    dx, dw = probe.backward(probe.w, probe.x, probe.dy)
    ry, rdx, rdw = probe.r_passes()
    step_dx, step_dw = probe.gradient_by_steps()
    w, x, dy = ({name: complex_step.shifted(a, probe.rw[name]) for name, a in probe.w.items()},
                complex_step.shifted(probe.x, probe.rx), complex_step.shifted(probe.dy, probe.rdy))
    moved_dx, moved_dw = probe.backward(w, x, dy)
    rows = [row("1 forward", "y", "loops", probe.y, loops.forward(case.layer, repeated, probe.x)),
            row("2 backward", "dx", "complex step", dx, step_dx),
            row("3 r_forward", "ry", "complex step", ry, complex_step.derivative(probe.forward(w, x))),
            row("3 r_backward", "rdx", "complex step", rdx, complex_step.derivative(moved_dx))]
    if probe.w:
        rows += [row("2 backward", "dw", "complex step", flat(dw), step_dw),
                 row("3 r_backward", "rdw", "complex step", flat(rdw), complex_step.derivative(flat(moved_dw)))]
        rows.append(first_layer_check(probe, row))
    return rows


def first_layer_check(probe, row):
    """As a net's first layer: no tangent comes in, and nobody asks for dx."""
    k, layer = probe.k, probe.layer
    zero = np.zeros_like(probe.x)
    results = []
    for rx, need_dx in ((None, False), (zero, True)):
        ry, rsaved = layer.r_forward(k, probe.w, probe.rw, probe.saved, rx)
        rdw, dw = empty_like(probe.w, probe.T, float), empty_like(probe.w, probe.T, float)
        layer.backward(k, dw, probe.w, probe.saved, probe.dy, need_dx=need_dx)
        layer.r_backward(k, rdw, probe.w, probe.rw, probe.saved, rsaved, probe.dy, probe.rdy, need_dx=need_dx)
        results.append(np.concatenate([ry.reshape(probe.T, -1), flat(dw), flat(rdw)], axis=1))
    return row("3 r_backward", "as first layer", "rx = 0", *results)


def loss_checks(loss, kernels, seed=0):
    """A loss's three passes: against loops, and the complex step on the pass below."""
    rng = np.random.default_rng(seed)
    z, y = cases.loss_inputs(loss, rng)
    rz = rng.standard_normal(z.shape)

    def dz_of(z):
        return loss.backward(kernels, loss.forward(kernels, z, y)[1])

    def values(Z, t):
        labels = np.broadcast_to(y[t:t + 1], (len(Z), *y.shape[1:]))
        return loss.forward(kernels, Z.reshape(len(Z), *z.shape[1:]), labels)[0]

    value, saved = loss.forward(kernels, z, y)
    steps = [complex_step.gradient(lambda Z, t=t: values(Z, t), z[t].ravel()).reshape(z.shape[1:]) for t in range(len(z))]
    moved = complex_step.derivative(dz_of(complex_step.shifted(z, rz)))
    rows = [("1 forward", "loss", "loops", value, loops.loss_forward(loss, z, y)),
            ("2 backward", "dz", "complex step", dz_of(z), np.array(steps)),
            ("3 r_backward", "rdz", "complex step", loss.r_backward(kernels, saved, rz), moved)]
    limit = tolerance(float, z[0].size)
    return [Check(rung, str(loss), quantity, oracle, relative_error(a, b), limit) for rung, quantity, oracle, a, b in rows]


def net_terms(net, examples):
    """How many numbers one forward pass sums from end to end: inputs and outputs of every layer, for `examples` examples."""
    shape, terms = net.input_shape, 0
    for layer in net.layers:
        terms += np.prod(shape) * examples
        shape = layer.output_shape(shape)
    return int(terms + net.num_params)


def network_checks(net, name, seed=0):
    """Gradient, Hessian and Gauss-Newton products of a whole net against the complex step, dense matrices and symmetry."""
    rng = np.random.default_rng(seed)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng, tasks=1)
    x, y = batch.x_support, batch.y_support
    u, v = rng.standard_normal((2, net.num_params))
    primal = net.primal(theta[None], x, y)
    H, G = dense.hessian(net, theta, x, y), dense.gauss_newton(net, theta, x, y)
    gradient = complex_step.gradient(
        lambda W: net.loss(W, np.broadcast_to(x, (len(W), *x.shape[1:])), np.broadcast_to(y, (len(W), *y.shape[1:]))), theta)
    Hu, Hv = net.hvp(primal, u[None])[0], net.hvp(primal, v[None])[0]
    scale = np.linalg.norm(u) * np.linalg.norm(Hv)                  # what u'Hv may be at most: it can cancel to nearly 0
    rows = [("2 backward", "gradient", "complex step", relative_error(primal.grad[0], gradient)),
            ("3 r_backward", "H v", "dense H", relative_error(Hv, H @ v)),
            ("3 r_backward", "G v", "dense J'HJ", relative_error(net.gauss_newton_product(primal, v[None])[0], G @ v)),
            ("5 algebra", "u'Hv = v'Hu", "symmetry", abs(u @ Hv - v @ Hu) / scale)]
    limit, margin = tolerance(float, net_terms(net, x.shape[1])), kinks.net_margin(net, theta[None], x)
    return [Check(rung, name, quantity, oracle, error, limit, margin) for rung, quantity, oracle, error in rows]


def meta_gradient_check(method, net, meta, batch, margin=np.inf, candidate=None):
    """Rung 4: a meta-gradient against the complex step through the whole inner loop, entry by entry, mean over tasks.

    candidate: what is to be judged, a function (net, meta, batch) -> gradient; the method's own meta_gradient unless given.
    """
    M = unrolled.BY_METHOD[type(method).__name__]
    tasks = [batch[t:t + 1] for t in range(len(batch))]
    truth = np.mean([complex_step.gradient(lambda W, t=task: M(net, method, t, W), meta) for task in tasks], axis=0)
    truth = reachable(method, net, truth)
    value = candidate(net, meta, batch) if candidate else method.meta_gradient(net, meta, batch).grad
    examples = batch.x_support.shape[1] + batch.x_query.shape[1]
    # Forward, backward and product each pass through the net once, in every inner step and once on the query set.
    limit = tolerance(float, 3 * (getattr(method, "inner_steps", 0) + 1) * net_terms(net, examples))
    return Check("4 meta-gradient", type(method).__name__, "dM/dmeta", "complex step", relative_error(value, truth), limit, margin)


def reachable(method, net, truth):
    """The derivative along what the method can move: Meta-SGD's rates of frozen parameters and CAVIA's start are fixed at 0."""
    truth, P = truth.copy(), net.num_params
    if type(method).__name__ == "MetaSGD":
        truth[P:] *= unrolled.masked(net, method)
    return truth


def has_context(net):
    """Whether a net has context parameters for CAVIA to adapt."""
    return any(isinstance(layer, (Context, FiLM)) for layer in net.layers)
