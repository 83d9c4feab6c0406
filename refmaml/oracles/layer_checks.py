"""Rungs 1 to 3 for layers and losses: each pass against loops or the complex step."""

import numpy as np

from refmaml.oracles import cases, complex_step, kinks, loops, loss_loops
from refmaml.oracles.tolerance import Check, relative_error, tolerance


def flat(w):
    """A dict of arrays (T, ...) as one matrix (T, P)."""
    return np.concatenate([a.reshape(len(a), -1) for a in w.values()], axis=1)


def named(flat_w, like):
    """The inverse of `flat`."""
    parts = np.split(flat_w, np.cumsum([a[0].size for a in like.values()])[:-1], axis=1)
    return {
        name: p.reshape(len(p), *a.shape[1:])
        for p, (name, a) in zip(parts, like.items(), strict=True)
    }


def empty_like(w, tasks, dtype):
    """Arrays (tasks, ...) for a backward pass to fill.

    NaN shows an entry it does not write.
    """
    return {name: np.full((tasks, *a.shape[1:]), np.nan, dtype) for name, a in w.items()}


class LayerProbe:
    """One layer with random parameters, inputs, adjoints and tangents."""

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
        # No pass of a layer sums more numbers than there are in a task's input, output
        # or parameters.
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
        rdx = self.layer.r_backward(
            self.k, rdw, self.w, self.rw, self.saved, rsaved, self.dy, self.rdy
        )
        return ry, rdx, rdw

    def r_passes_by_steps(self):
        """(ry, rdx, rdw) by one complex step on the forward and backward passes."""
        w = {name: complex_step.shifted(a, self.rw[name]) for name, a in self.w.items()}
        x = complex_step.shifted(self.x, self.rx)
        dx, dw = self.backward(w, x, complex_step.shifted(self.dy, self.rdy))
        rdw = {name: complex_step.derivative(a) for name, a in dw.items()}
        return complex_step.derivative(self.forward(w, x)), complex_step.derivative(dx), rdw

    def gradient_by_steps(self):
        """(dx, dw) of <dy, forward> by the complex step on the forward pass."""
        dxs, dws = [], []
        for t in range(self.T):
            wt = {name: a[t if len(a) > 1 else 0][None] for name, a in self.w.items()}
            xt, dyt = self.x[t : t + 1], self.dy[t : t + 1]

            def of_x(X, wt=wt, xt=xt, dyt=dyt):
                return (
                    (dyt * self.forward(wt, X.reshape(len(X), *xt.shape[1:])))
                    .reshape(len(X), -1)
                    .sum(axis=1)
                )

            def of_w(W, wt=wt, xt=xt, dyt=dyt):
                y = self.forward(named(W, wt), np.broadcast_to(xt, (len(W), *xt.shape[1:])))
                return (dyt * y).reshape(len(W), -1).sum(axis=1)

            dxs.append(complex_step.gradient(of_x, xt.ravel()).reshape(xt.shape[1:]))
            dws.append(complex_step.gradient(of_w, flat(wt)[0]) if wt else np.empty(0))
        return np.array(dxs), np.array(dws)


def layer_checks(case, kernels, seed=0, shared=False):
    """The four passes of one layer.

    The forward pass is checked against loops, every other pass against the complex step
    on the pass below it.
    """
    probe = LayerProbe(case, kernels, seed, shared)
    margin = kinks.layer_margin(case.layer, probe.x, w=probe.w, kernels=kernels)
    subject = f"{case}{', shared' if shared else ''}"
    rows = [forward_row(probe), *derivative_rows(probe)]
    if probe.w:
        rows.append(first_layer_row(probe))
    return [
        Check(rung, subject, quantity, oracle, relative_error(a, b), probe.tolerance, margin)
        for rung, quantity, oracle, a, b in rows
    ]


# Each of these rows is (rung, quantity, oracle, value, the oracle's value).


def forward_row(probe):
    """y against loops, or against the layer itself on one task at a time."""
    layer, x = probe.layer, probe.x
    w = {name: np.broadcast_to(a, (probe.T, *a.shape[1:])) for name, a in probe.w.items()}
    if loops.known(layer):
        return "1 forward", "y", "loops", probe.y, loops.forward(layer, w, x)
    return "1 forward", "y", "task by task", probe.y, loops.task_by_task(probe.k, layer, w, x)


def derivative_rows(probe):
    """The derivatives of the input and of the parameters, if there are any."""
    dx, dw = probe.backward(probe.w, probe.x, probe.dy)
    ry, rdx, rdw = probe.r_passes()
    step_dx, step_dw = probe.gradient_by_steps()
    step_ry, step_rdx, step_rdw = probe.r_passes_by_steps()
    rows = [
        ("2 backward", "dx", dx, step_dx),
        ("3 r_forward", "ry", ry, step_ry),
        ("3 r_backward", "rdx", rdx, step_rdx),
    ]
    if probe.w:
        rows += [
            ("2 backward", "dw", flat(dw), step_dw),
            ("3 r_backward", "rdw", flat(rdw), flat(step_rdw)),
        ]
    return [(rung, quantity, "complex step", a, b) for rung, quantity, a, b in rows]


def first_layer_row(probe):
    """As a net's first layer: the input has no tangent, and dx is not needed."""
    k, layer = probe.k, probe.layer
    zero = np.zeros_like(probe.x)
    results = []
    for rx, need_dx in ((None, False), (zero, True)):
        ry, rsaved = layer.r_forward(k, probe.w, probe.rw, probe.saved, rx)
        rdw, dw = empty_like(probe.w, probe.T, float), empty_like(probe.w, probe.T, float)
        layer.backward(k, dw, probe.w, probe.saved, probe.dy, need_dx=need_dx)
        layer.r_backward(
            k, rdw, probe.w, probe.rw, probe.saved, rsaved, probe.dy, probe.rdy, need_dx=need_dx
        )
        results.append(np.concatenate([ry.reshape(probe.T, -1), flat(dw), flat(rdw)], axis=1))
    return "3 r_backward", "as first layer", "rx = 0", *results


def loss_checks(loss, kernels, seed=0):
    """The passes of a loss, against loops and the complex step."""
    rng = np.random.default_rng(seed)
    z, y = cases.loss_inputs(loss, rng)
    rz = rng.standard_normal(z.shape)

    def dz_of(z):
        return loss.backward(kernels, loss.forward(kernels, z, y)[1])

    def values(Z, t):
        labels = np.broadcast_to(y[t : t + 1], (len(Z), *y.shape[1:]))
        return loss.forward(kernels, Z.reshape(len(Z), *z.shape[1:]), labels)[0]

    value, saved = loss.forward(kernels, z, y)
    steps = [
        complex_step.gradient(lambda Z, t=t: values(Z, t), z[t].ravel()).reshape(z.shape[1:])
        for t in range(len(z))
    ]
    moved = complex_step.derivative(dz_of(complex_step.shifted(z, rz)))
    rows = [
        ("1 forward", "loss", "loops", value, loss_loops.forward(loss, z, y)),
        ("2 backward", "dz", "complex step", dz_of(z), np.array(steps)),
        ("3 r_backward", "rdz", "complex step", loss.r_backward(kernels, saved, rz), moved),
    ]
    limit = tolerance(float, z[0].size)
    return [
        Check(rung, cases.brief(loss), quantity, oracle, relative_error(a, b), limit)
        for rung, quantity, oracle, a, b in rows
    ]
