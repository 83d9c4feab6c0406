"""What the page docs/pages/subspace.html must compute, by refmaml."""

import numpy as np

import refmaml as rm
from refmaml.oracles.closed_forms import principal_angle
from refmaml.oracles.tolerance import tolerance

NAME = "subspace"
SETTINGS = [
    {"tasks": 6, "samples": 8},
    {"tasks": 4, "samples": 3, "diversity": 0.2, "alpha": 0.8, "step": 250},
]
DIM, RANK = 20, 3


def flat(entry):
    """(B, w) as the net's vector: "0.weight" is B' (3, 20), then w."""
    return np.concatenate([np.ravel(entry["B"]), entry["w"]])


def as_batch(tasks):
    """A Batch of the page's tasks."""
    x, y, x2, y2 = (np.array([task[key] for task in tasks]) for key in ("x", "y", "x2", "y2"))
    return rm.Batch(x, y[..., None], x2, y2[..., None])


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    net, basis = rm.two_layer_linear(DIM, RANK), np.array(numbers["basis"]).T
    alpha, beta = numbers["alpha"] * numbers["inner"], numbers["beta"]
    methods = {"anil": rm.FirstOrderANIL(alpha), "erm": rm.ERM()}
    terms = (DIM + RANK + numbers["samples"]) * 2 + numbers["tasks"]  # of one entry
    close = tolerance(float, terms)
    yield "basis", basis.T @ basis, np.eye(RANK), close
    for name, method in methods.items():
        for step, batch, entry in zip(
            numbers["kept"], numbers["batches"], numbers[name], strict=True
        ):
            label, theta, data = f"{name}, step {step}", flat(entry["now"]), as_batch(batch)
            after = theta - beta * method.meta_gradient(net, theta, data).grad
            yield label, flat(entry["after"]), after, close * np.abs(theta).max()
            heads = np.broadcast_to(theta[-RANK:], (len(batch), RANK))
            if name == "anil":
                heads = method.adapt(net, theta, data.x_support, data.y_support)[:, -RANK:]
            yield from weights(label, entry, heads, batch, beta, close)
        yield from angles(name, numbers, basis, close)
    yield from last_angle(numbers, basis, close)


def weights(label, entry, heads, batch, beta, close):
    """The singular values of the means of w w' and beta w_* w'."""
    true = np.array([task["head"] for task in batch])
    spread = np.linalg.svd(heads.T @ heads / len(heads), compute_uv=False)
    signal = beta * np.linalg.svd(true.T @ heads / len(heads), compute_uv=False)
    scale = np.abs(heads).max()  # an error of the heads counts with their size
    yield f"{label}: spread", entry["spread"], spread, 4 * close * max(scale, scale**2, 1e-3)
    allowed = 4 * beta * close * np.abs(true).max() * max(scale, 1e-3)
    yield f"{label}: signal", entry["signal"], signal, allowed
    yield f"{label}: prior", entry["prior"], 1 - beta * spread[-1], 4 * close


def angles(name, numbers, basis, close):
    """The angle of every kept step. An error of a sine counts 1 / cos in the angle."""
    for entry in numbers[name]:
        B = np.array(entry["now"]["B"]).T
        angle = principal_angle(B, basis)
        allowed = np.degrees(close * np.linalg.cond(B) / np.cos(angle))
        yield f"{name}: angle", entry["angle"], np.degrees(angle), allowed


def last_angle(numbers, basis, close):
    """The table shows the values of the chosen step."""
    for name in ("anil", "erm"):
        at, shown = numbers["at"][name], numbers["shown"]
        yield f"{name}: angle of the step", at["angle"], numbers["angles"][name][numbers["step"]], 0
        for key in ("angle", "prior"):
            yield f"{name}: {key} shown", shown[f"{name}_{key}"], at[key], 0
        yield f"{name}: signal shown", shown[f"{name}_signal"], at["signal"][-1], 0
    yield "step", shown["step"], numbers["step"], 0


PLANTED = {
    "the head not adapted": (
        "return w.map((wc, c) => wc - (alpha",
        "return w.map((wc, c) => wc - (0 * alpha",
    ),
    "the gradient at the old head": ("headGradient(B, head, task)", "headGradient(B, w, task)"),
    "only one direction removed": (
        "Q.reduce((rest, q) => combine(rest, -dot(q, column), q), column)",
        "combine(column, -dot(Q[0], column), Q[0])",
    ),
    "signal without beta": ("signal: scaled(BETA, signal)", "signal: signal"),
}
DRAGS = {"handle-step": (-90, 0, "step")}
KEYS = {("handle-step", "ARROW_LEFT"): ("step", -10), ("range-tasks", "ARROW_LEFT"): ("tasks", -1)}
