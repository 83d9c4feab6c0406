"""Batch-norm's statistics over all tasks, or over support and query set, are named.

The functions have their own net, gradient by gradient: a linear layer as a convolution
of 1 x 1, batch-norm, tanh, a head. Derivatives in theta are complex steps; inner
gradients are by hand, with all tasks side by side.
"""

import numpy as np
import pytest

import refmaml as rm

STEPS, ALPHA, EPS, TINY = 2, 0.3, 1e-3, 1e-30
METHOD = rm.MAML(ALPHA, STEPS)


def own_net():
    layers = [
        rm.Conv2d(1, 2, 1, bias=False), rm.BatchNorm2d(2, eps=EPS), rm.Tanh(), rm.Flatten(),
        rm.Linear(8, 2),
    ]  # fmt: skip
    return rm.Sequential(layers, rm.MSE(factor=0.5), (1, 2, 2))


def loss_and_gradient(w, x, y, over, counted):
    """(losses (T,), gradients) of the sum of all tasks' losses.

    over      axes of the statistics; counted: the first so many examples are in the
              loss
    """
    h = np.einsum("tc,tnp->tncp", w["0.weight"], x)
    mean, (T, N) = h.mean(over, keepdims=True), h.shape[:2]
    s = 1 / np.sqrt(((h - mean) ** 2).mean(over, keepdims=True) + EPS)
    xh = s * (h - mean)
    gamma = w["1.weight"][:, None, :, None]
    a = np.tanh(gamma * xh + w["1.bias"][:, None, :, None])
    flat = a.reshape(T, N, -1)
    z = np.einsum("tnf,tof->tno", flat, w["4.weight"]) + w["4.bias"][:, None]
    r = np.where(np.arange(N)[None, :, None] < counted, z - y, 0)
    losses = 0.5 * (r * r).sum((1, 2)) / (counted * r.shape[2])
    dz = r / (counted * r.shape[2])
    dy = np.einsum("tno,tof->tnf", dz, w["4.weight"]).reshape(h.shape) * (1 - a * a)
    dxh = gamma * dy
    down = dxh - dxh.mean(over, keepdims=True) - xh * (dxh * xh).mean(over, keepdims=True)
    return losses, {
        "0.weight": np.einsum("tncp,tnp->tc", s * down, x),
        "1.weight": (dy * xh).sum((1, 3)),
        "1.bias": dy.sum((1, 3)),
        "4.weight": np.einsum("tno,tnf->tof", dz, flat),
        "4.bias": dz.sum(1),
    }


def objective(theta, batch, over, together):
    """The mean query loss after STEPS steps of all tasks."""
    T = len(batch.x_support)
    sets = [
        (x.reshape(*x.shape[:2], -1), y)
        for x, y in ((batch.x_support, batch.y_support), (batch.x_query, batch.y_query))
    ]
    counts = [x.shape[1] for x, _ in sets]
    if together:
        sets = [tuple(np.concatenate(p, 1) for p in zip(*o, strict=True))
                for o in (sets, sets[::-1])]  # fmt: skip
    shapes = {"0.weight": (2,)}
    phi = {n: np.stack([p.reshape(shapes.get(n, p.shape))] * T) for n, p in theta.items()}
    for _ in range(STEPS):
        _, g = loss_and_gradient(phi, *sets[0], over, counts[0])
        phi = {n: p - ALPHA * g[n] for n, p in phi.items()}
    return loss_and_gradient(phi, *sets[1], over, counts[1])[0].mean()


def gradient(over, together=False):
    def fn(params, batch):
        out = {n: np.zeros(p.shape) for n, p in params.items()}
        for name, p in params.items():
            for i in range(p.size):
                moved = p.astype(complex)
                moved.flat[i] += TINY * 1j
                moved_to = {**params, name: moved}
                out[name].flat[i] = objective(moved_to, batch, over, together).imag / TINY
        return out

    return fn


ONE_TASK, ALL_TASKS = (1, 3), (0, 1, 3)


def checked(fn):
    return rm.check_meta_gradient(
        fn, METHOD, net=own_net(), repeats=0, precision="float64", seconds=20
    )


def test_statistics_of_each_task_and_set_are_right():
    assert checked(gradient(ONE_TASK))


@pytest.mark.parametrize(
    ("over", "together", "words"),
    [
        (ALL_TASKS, False, "batch-norm's statistics are over all tasks together"),
        (ONE_TASK, True, "statistics are over the support and the query set together"),
    ],
)
def test_statistics_over_too_much_are_named(over, together, words):
    report = checked(gradient(over, together))
    assert report.verdict == "wrong" and words in report.diagnosis and report.fix, str(report)
