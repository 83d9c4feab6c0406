"""What the page docs/pages/noise.html must compute, by refmaml."""

import numpy as np
from scalar_functions import WAVY_CURVATURE, WELLS_CURVATURE, scalar_wavy, scalar_wells

import refmaml as rm
from refmaml.oracles.anchor_objectives import stochastic_objective, variational_objective

NAME = "noise"
SETTINGS = [
    {},
    {"problem": "wavy", "lambda": 8, "anchor": -0.9, "sigma": 0.5},
    {"problem": "wells", "lambda": 6, "anchor": 1, "sigma": 0.1},
]
# The model and the largest f''. Rounding of theta* is that of F' over F'', which is
# above 1 in the settings; f'' and f''' multiply it.
PROBLEMS = {"wavy": (scalar_wavy(), WAVY_CURVATURE), "wells": (scalar_wells(), WELLS_CURVATURE)}
CLOSE = 1e-13
SMALL = 1e-5  # the page's step of differences
X = np.zeros((1, 1))


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    net, curvature = PROBLEMS[numbers["problem"]]
    anchor, strength, sigma = numbers["anchor"], numbers["lambda"], numbers["sigma"]
    shown = numbers["shown"]

    def stochastic(at):
        ends = at - 1 - 7.2 / strength, at + 1 + 7.2 / strength
        return stochastic_objective(net, at, X, strength, sigma, ends)

    def variational(at):
        return variational_objective(net, at, X, strength)

    S, V = stochastic(anchor), variational(anchor)
    page = numbers["S"]
    in_slope = CLOSE * curvature**2 / sigma
    yield "solutions", [s["w"] for s in page["solutions"]], S.solutions, CLOSE
    yield "probabilities", [s["p"] for s in page["solutions"]], S.probabilities, CLOSE / sigma
    yield "S", page["value"], S.value, CLOSE / sigma
    yield "moving", page["moving"], S.moving, in_slope
    yield "choosing", page["choosing"], S.choosing, in_slope
    whole = S.moving + S.choosing
    yield "dS", page["gradient"], whole, 2 * in_slope
    ends = [stochastic(anchor + h).value for h in (SMALL, -SMALL)]
    rounding = CLOSE / sigma / SMALL
    yield "differences of S", numbers["S_differences"], (ends[0] - ends[1]) / 2 / SMALL, rounding
    # The third derivative of S is below 1e3 / sigma^3.
    third = 1e3 / sigma**3 * SMALL**2
    yield "dS is the slope", numbers["S_differences"], whole, rounding + third
    page = numbers["V"]
    yield "q", [page["m"], page["s"]], [V.mean, V.deviation], CLOSE
    yield "V", page["value"], V.value, CLOSE
    yield "dV", page["gradient"], V.gradient, CLOSE * strength
    ends = [variational(anchor + h).value for h in (SMALL, -SMALL)]
    yield "differences of V", numbers["V_differences"], (ends[0] - ends[1]) / 2 / SMALL, rounding
    yield "dV is the slope", numbers["V_differences"], V.gradient, rounding + 1e3 * SMALL**2
    yield from at_the_anchor(numbers, net, curvature)
    for key, value in {
        "stochastic": numbers["S"]["value"],
        "moving": numbers["S"]["moving"],
        "choosing": numbers["S"]["choosing"],
        "whole": numbers["S"]["gradient"],
        "mean": page["m"],
        "deviation": page["s"],
        "variational": page["value"],
        "V_gradient": page["gradient"],
        "S_differences": numbers["S_differences"],
        "V_differences": numbers["V_differences"],
        "amortised": numbers["amortised"],
    }.items():
        yield f"shown: {key}", shown[key], value, 0


def at_the_anchor(numbers, net, curvature):
    """The solution of a solver that starts at the anchor itself, by iMAML."""
    anchor, strength = numbers["anchor"], numbers["lambda"]
    method = rm.IMAML(strength, 2000, 1 / (curvature + strength), cg_steps=3)
    found = rm.anchor_map(net, np.array([anchor]), X, X, method)
    phi = found.phi[0]
    f, df = net.loss(found.phi[:, None], X, X)[0], net.gradient(found.phi[:, None], X, X)[0, 0]
    yield "phi", numbers["phi"], phi, CLOSE
    yield "M", numbers["M"], f, CLOSE
    yield "dM", numbers["slope"], df * found.slope[0], CLOSE * curvature**2
    yield (
        "amortised",
        numbers["amortised"],
        f + strength / 2 * (phi - anchor) ** 2,
        CLOSE * strength,
    )


PLANTED = {
    "the probabilities do not change": (
        "gradient: found.moving + found.choosing",
        "gradient: found.moving",
    ),
    "the tops between the basins do not move": (
        "(anchoredSlope(problem, point.w, lambda) - 1) / sigma",
        "-1 / sigma",
    ),
    "f'' of the mean in place of the mean of f''": (
        "ddf: -9 * a * Math.sin(3 * m)",
        "ddf: -9 * Math.sin(3 * m)",
    ),
    "the divergence without its logarithm": ("- 1 - Math.log(ratio)) / 2", "- 1) / 2"),
    "V's gradient with the other sign": ("lambda * (anchor - m)}", "lambda * (m - anchor)}"),
}
DRAGS = {"handle-anchor": (60, 0, "anchor"), "handle-cursor": (-60, 0, "anchor")}
KEYS = {
    ("handle-anchor", "ARROW_RIGHT"): ("anchor", 0.025),
    ("handle-cursor", "ARROW_LEFT"): ("anchor", -0.025),
    ("range-sigma", "ARROW_RIGHT"): ("sigma", 0.02),
}
