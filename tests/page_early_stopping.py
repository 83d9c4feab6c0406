"""What the page docs/pages/early_stopping.html must compute, by refmaml."""

import numpy as np

import refmaml as rm
from refmaml.oracles.tolerance import tolerance

NAME = "early_stopping"
SETTINGS = [
    {},
    {"steps": 11, "alpha": 0.1, "s1": 4, "s2": 0.8, "lambda": 3},
    {"steps": 3, "alpha": 0.4, "s1": 4.5},  # a negative precision
    {"steps": 1, "alpha": 0.02, "s2": 0.1},
]
SMALL = 1e-5  # the page's step of differences


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    A, c = np.array(numbers["A"])[None], np.array(numbers["centre"])[None]
    theta, alpha, K = np.array(numbers["theta"]), numbers["alpha"], numbers["steps"]
    s, net = np.array([numbers["s1"], numbers["s2"]]), rm.Quadratic(2)
    size = np.abs(np.concatenate([theta, c[0]])).max()
    # K steps of 6 terms each; an overshooting step multiplies errors.
    growth = max(1, np.abs(1 - alpha * s).max()) ** K
    close = growth * size * tolerance(float, 6 * K)
    phi = rm.MAML(alpha, K).adapt(net, theta, A, c)[0]
    yield "phi", numbers["phi"], phi, close
    yield from prior(numbers, A[0], c[0], theta, s, alpha, K, size)
    yield from envelope(numbers, net, theta, A, c)
    shown = numbers["shown"]
    for name, key in (("phi", "phi"), ("map", "map"), ("gradient", "gradient")):
        yield f"{name} shown", [shown[f"{name}_x"], shown[f"{name}_y"]], numbers[key], 0


def prior(numbers, A, c, theta, s, alpha, K, size):
    """The precisions, the prior's matrix, and the most probable parameters."""
    left = (1 - alpha * s) ** K
    q = s * left / (1 - left)
    # left has the relative error K eps / |1 - alpha s| of its base, and 1 - left
    # cancels: both count in q.
    eps = tolerance(float, 4)
    in_left = eps * (K * np.abs(left) / np.abs(1 - alpha * s) + np.abs(left))
    in_q = np.abs(s * in_left / (1 - left) ** 2) + eps * np.abs(q)
    yield "q", [numbers["shown"]["q1"], numbers["shown"]["q2"]], q, in_q
    values, vectors = np.linalg.eigh(A)
    yield "curvatures", values, np.sort(s), 8 * eps * s.max()
    order = np.argsort(s)
    P = vectors * q[order] @ vectors.T
    in_P = in_q.max() + 8 * eps * np.abs(q).max() * s.max() / max(1e-9, abs(s[0] - s[1]))
    yield "prior", numbers["prior"], P, in_P
    system = A + P
    solution = np.linalg.solve(system, A @ c + P @ theta)
    allowed = np.linalg.cond(system) * (in_P / np.linalg.norm(system, 2) + 8 * eps) * 4 * size
    yield "MAP", numbers["map"], solution, allowed
    yield "MAP is phi", numbers["map"], numbers["phi"], allowed
    yield "difference", numbers["shown"]["difference"], 0, 2 * np.max(allowed)


def envelope(numbers, net, theta, A, c):
    """lambda (theta - phi*), phi* by iMAML's Hessian-free solver, and differences."""
    strength = numbers["lambda"]
    method = rm.IMAML(strength, 3, solver="newton_cg", cg_steps=6, cg_tol=1e-15)

    def value(at):
        phi = method.adapt(net, at, A, c)
        return (net.loss(phi, A, c) + strength / 2 * ((phi - at) ** 2).sum(1))[0]

    phi = method.adapt(net, theta, A, c)[0]
    condition = 1 + numbers["s1"] / strength
    close = condition * tolerance(float, 12) * np.abs(np.concatenate([theta, c[0]])).max()
    yield "phi*", numbers["anchored"], phi, close
    gradient = strength * (theta - phi)
    yield "envelope", numbers["gradient"], gradient, strength * close * 2
    yield "value", numbers["value"], value(theta), 4 * close * (1 + np.abs(gradient).sum())
    ends = [[value(theta + h * e) for h in (SMALL, -SMALL)] for e in np.eye(2)]
    by_differences = [(up - down) / (2 * SMALL) for up, down in ends]
    rounding = 4 * close * (1 + np.abs(gradient).sum()) / SMALL
    shown = numbers["shown"]
    for i, name in enumerate(("differences_x", "differences_y")):
        yield name, shown[name], by_differences[i], rounding
        yield f"{name}: the formula", shown[name], gradient[i], rounding


PLANTED = {
    "one step fewer in the prior": (
        "const left = (1 - alpha * s) ** K",
        "const left = (1 - alpha * s) ** (K - 1)",
    ),
    "the prior without s": ("return (s * left) / (1 - left)", "return left / (1 - left)"),
    "the envelope's gradient doubled": (
        "gradient: scaled(lambda, way)",
        "gradient: scaled(2 * lambda, way)",
    ),
    "the penalty without its half": ("+ (lambda / 2) * dot(way, way)", "+ lambda * dot(way, way)"),
}
DRAGS = {"handle-theta": (50, 30, "theta"), "handle-centre": (-40, 20, "centre")}
KEYS = {
    ("handle-theta", "ARROW_UP"): ("theta", [0, 0.05]),
    ("range-steps", "ARROW_RIGHT"): ("steps", 1),
}
