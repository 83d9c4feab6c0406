"""What the page docs/pages/second_order.html must compute, by refmaml."""

import re

import numpy as np
from scalar_functions import WELLS_CURVATURE, d_wells, dd_wells, wells

import refmaml as rm
from refmaml.oracles.tolerance import tolerance

NAME = "second_order"
SETTINGS = [
    {},
    {"lambda": 1, "steps": 25, "theta": 0.8},
    {"problem": "wells", "theta": -0.4, "alpha": 0.05, "steps": 9, "lambda": 2.5, "size": 3},
    {"problem": "bowl", "steps": 1, "alpha": 0.25, "size": 0},
]
PROBLEMS = {  # f, f', f'', the largest f'' and f''' for |w| <= 2
    "quartic": (
        lambda w, x: w**4 / 4 - w**2 / 2,
        lambda w, x: w**3 - w,
        lambda w, x: 3 * w**2 - 1,
        11,
        12,
    ),
    "wells": (wells, d_wells, dd_wells, WELLS_CURVATURE, 1.4 * 1.2 / 0.25**3 + 1),
    "bowl": (lambda w, x: w**2 / 2, lambda w, x: w, lambda w, x: 1 + 0 * w, 1, 0),
}
DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
SMALL = 1e-5  # the page's step of differences


def model(problem, query_is_parameter=False):
    """f as support and query loss; or w itself as query loss, where x is 1."""
    f, df, ddf, *_ = PROBLEMS[problem]
    if not query_is_parameter:
        return rm.ScalarFunction(f, df, ddf)
    zero = np.zeros((1, 1))  # the functions' shift

    def of(function, other):
        return lambda w, x: np.where(x[:, 0] == 1, other(w), function(w, zero))

    return rm.ScalarFunction(of(f, lambda w: w), of(df, np.ones_like), of(ddf, np.zeros_like))


def spelled(text):
    """The number of a text such as "6 · 10⁵" or "10"."""
    found = 1
    for factor in text.split(" · "):
        base, power = re.fullmatch(r"(\d+?)([⁰¹²³⁴⁵⁶⁷⁸⁹]*)", factor).groups()
        found *= int(base) ** int(power.translate(DIGITS) or 1)
    return found


def meta(net, numbers, theta, steps, query=0.0):
    """Value and gradient of M after a number of steps."""
    x, y = np.zeros((1, 1)), np.zeros((1, 1))
    method = rm.MAML(numbers["alpha"], steps, anchor=numbers["lambda"])
    batch = rm.Batch(x, y, np.full((1, 1), query), y)
    return method.meta_gradient(net, np.array([theta]), batch, trace=True)


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    K, strength, alpha = numbers["steps"], numbers["lambda"], numbers["alpha"]
    shown = numbers["shown"]
    *_, curvature, third = PROBLEMS[numbers["problem"]]
    net, derivative = model(numbers["problem"]), model(numbers["problem"], True)
    out = meta(net, numbers, numbers["theta"], K)
    phis = [float(np.ravel(phi)[0]) for phi in out.trace["phi"]]
    # A step multiplies errors of phi by its factor; D and lam have the factor's error.
    factors = np.abs(numbers["factors"])
    growth = np.prod(np.maximum(1, factors))
    close = growth * tolerance(float, 12 * K) * (2 + curvature + strength)
    yield "phi", numbers["phi"], phis, close
    D = [1.0] + [
        meta(derivative, numbers, numbers["theta"], k, query=1.0).grad[0] for k in range(1, K + 1)
    ]
    in_D = close * (1 + alpha * third * K) * max(np.abs(D).max(), 1)
    yield "D", numbers["D"], D, in_D
    lam = [float(np.ravel(v)[0]) for v in out.trace["lam"]]
    in_lam = in_D * (1 + np.abs(lam).max()) * (1 + curvature)
    yield "lam", numbers["lam"][1:], lam[1:], in_lam
    # refmaml adds the penalty's part to lam_0.
    through_penalty = alpha * strength * np.sum(lam[1:])
    yield "lam_0", numbers["lam"][0] + through_penalty, lam[0], in_lam * (K + 1)
    for name in ("forward", "backward"):
        yield name, numbers[name], out.grad[0], in_lam * (K + 1)
        yield f"{name} shown", shown[name], numbers[name], 0
    ends = [meta(net, numbers, numbers["theta"] + h, K).loss for h in (SMALL, -SMALL)]
    rounding = close * (1 + curvature) / SMALL
    yield "differences", numbers["differences"], (ends[0] - ends[1]) / (2 * SMALL), rounding
    # The error of differences is M''' SMALL^2 / 6; M''' is below 1e4 in the settings.
    yield "the formula", numbers["differences"], out.grad[0], rounding + 1e4 * SMALL**2
    if strength:
        hvp = net.hvp(
            net.primal(np.array([[phis[-1]]]), np.zeros((1, 1)), np.zeros((1, 1))), np.ones((1, 1))
        )[0, 0]
        yield "limit", numbers["limit"], 1 / (1 + hvp / strength), close * (1 + third / strength)
    if strength and K == 25:  # settled: iMAML's own derivative
        method = rm.IMAML(strength, 2000, 1 / (curvature + strength), cg_steps=3)
        found = rm.anchor_map(
            net, np.array([numbers["theta"]]), np.zeros((1, 1)), np.zeros((1, 1)), method
        )
        left = factors[-1] ** K  # what of the way to the fixed point is left
        yield "iMAML", numbers["limit"], found.slope[0], 20 * left + close
    P = 10 ** numbers["size"]
    counts = {"matrix": P * P, "vector": P, "parameters": P, "forward_products": K * P}
    for name, value in counts.items():
        yield f"{name} shown", spelled(shown[name]), value, 0
    for name, value in (("backward_products", K), ("limit", numbers["limit"])):
        yield f"{name} shown", shown[name], value, 0
    yield "last shown", [shown["last"], shown["query"]], [numbers["D"][-1], numbers["lam"][-1]], 0


PLANTED = {
    "one factor only": (
        "for (let k = K - 1; k >= 0; k--) lam[k] = factors[k] * lam[k + 1];",
        "for (let k = K - 1; k >= 0; k--) lam[k] = k < K - 1 ? lam[k + 1] : factors[k] * lam[K];",
    ),
    "the Hessian doubled": (
        "factors.push(1 - alpha * (ddf(phi[k]) + lambda));",
        "factors.push(1 - alpha * (2 * ddf(phi[k]) + lambda));",
    ),
    "the penalty does not move with theta": (
        "D.push(factors[k] * D[k] + alpha * lambda)",
        "D.push(factors[k] * D[k])",
    ),
    "the sum without its last term": ("sum(lam.slice(1))", "sum(lam.slice(2))"),
}
DRAGS = {"handle-theta": (60, 0, "theta"), "handle-cursor": (-60, 0, "theta")}
KEYS = {
    ("handle-theta", "ARROW_RIGHT"): ("theta", 0.02),
    ("handle-cursor", "ARROW_LEFT"): ("theta", -0.02),
    ("range-steps", "ARROW_RIGHT"): ("steps", 1),
}
