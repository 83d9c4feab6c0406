"""What the page docs/pages/anchor.html must compute, by refmaml."""

from functools import lru_cache

import numpy as np
from scalar_functions import WAVY_CURVATURE, WELLS_CURVATURE, scalar_wavy, scalar_wells, solver

import refmaml as rm

NAME = "anchor"
SETTINGS = [
    {},
    {"lambda": 20, "anchor": 1.1, "functions": 12},
    {"problem": "wells", "lambda": 8, "anchor": -1.4},
]
PROBLEMS = {
    "wavy": (scalar_wavy(), WAVY_CURVATURE, 27 + 3.5 * 49),  # model, max|f''|, max|f'''|
    "wells": (scalar_wells(), WELLS_CURVATURE, 1.4 * 1.2 / 0.25**3 + 1.4 * 1.2 / 0.8**3),
}
CLOSE = 1e-14  # of theta*, whose condition number is below 3: rounding of F' over F''
SMALL = 1e-5  # the page's step of differences


def solved(name, anchors, strength, shift=0.0):
    """refmaml's map, with f and f' at its solutions."""
    return solved_once(name, tuple(anchors), strength, shift)


@lru_cache
def solved_once(name, anchors, strength, shift):
    net, curvature, _ = PROBLEMS[name]
    x, y = np.array([[shift]]), np.zeros((1, 1))
    found = rm.anchor_map(net, np.array(anchors), x, y, solver(strength, curvature))
    x, y = np.repeat(x, len(anchors), 0), np.repeat(y, len(anchors), 0)
    phi = found.phi[:, None]
    return found, net.loss(phi, x, y), net.gradient(phi, x, y)[:, 0]


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    name, strength = numbers["problem"], numbers["lambda"]
    third = PROBLEMS[name][2]
    for part, anchors in (("at", numbers["anchors"]), ("now", [numbers["anchor"]])):
        page = numbers[part] if part == "at" else [numbers[part]]
        page = {key: np.array([p[key] for p in page]) for key in page[0]}
        found, _, gradient = solved(name, anchors, strength)
        slope, curvature = found.slope, strength * (1 / found.slope - 1)
        in_slope = CLOSE * (1 + third * slope**2 / strength)  # through f''(theta*)
        yield f"{part}: phi", page["phi"], found.phi, CLOSE
        yield f"{part}: slope", page["slope"], slope, in_slope
        yield f"{part}: f''", page["curvature"], curvature, CLOSE * (third + abs(curvature))
        far = CLOSE * (1 + abs(curvature))
        yield f"{part}: f'", page["gradient"], gradient, far
        yield f"{part}: M'", page["meta"], gradient * slope, abs(gradient) * in_slope + slope * far
        ends = [solved(name, np.array(anchors) + h, strength)[0].phi for h in (SMALL, -SMALL)]
        by_differences = (ends[0] - ends[1]) / (2 * SMALL)
        yield f"{part}: differences", page["differences"], by_differences, CLOSE / SMALL
    many = [solved(name, [numbers["anchor"]], strength, s) for s in numbers["shifts"]]
    value = np.mean([loss[0] for _, loss, _ in many])
    gradient = np.mean([grad[0] * found.slope[0] for found, _, grad in many])
    yield "M", numbers["objective"]["value"], value, 4 * CLOSE
    yield "dM", numbers["objective"]["gradient"], gradient, 40 * CLOSE  # |f''| up to 34
    for key in ("phi", "slope", "differences", "curvature", "gradient", "meta"):
        yield f"shown: {key}", numbers["shown"][key], numbers["now"][key], 0


PLANTED = {
    "the derivative without lambda": ("1 / (1 + ddf(w) / lambda)", "1 / (1 + ddf(w))"),
    "the penalty without its half": ("df(w) + lambda * (w", "df(w) + 2 * lambda * (w"),
    "another gradient shown": ("gradient, meta: gradient * slope", "gradient, meta: gradient"),
}
DRAGS = {"handle-anchor": (60, 0, "anchor"), "handle-cursor": (-60, 0, "anchor")}
KEYS = {
    ("handle-anchor", "ARROW_RIGHT"): ("anchor", 0.025),
    ("handle-cursor", "ARROW_LEFT"): ("anchor", -0.025),
    ("range-lambda", "ARROW_RIGHT"): ("lambda", 0.5),
}
