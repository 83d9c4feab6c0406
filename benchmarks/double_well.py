"""Three gradients of a noisy inner loop on a double well.

    python benchmarks/double_well.py --out benchmarks/double_well.json

f = w^2/2 - log cosh(3 w)/3 has minima at +-p and a maximum at 0, and the inner loop
starts from theta + sigma xi. Each run ends in the well of its start. The exact numbers
come from a quadrature whose nodes lie densely around the start 0, where runs part; the
others from 400,001 equidistant nodes, which need no knowledge of that place.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import refmaml as rm
from refmaml.oracles import noisy_inner_loops
from refmaml.storage.atomic import atomic_write

THETA, SIGMA, ALPHA, STEPS = 0.25, 0.5, 0.3, (1, 3, 10, 30, 60)
EQUIDISTANT = np.linspace(-8, 8, 400_001)
AT_ONCE = 20_000
SUPPORT, QUERY = np.zeros((1, 1)), np.ones((1, 1))
TASK = rm.Batch(SUPPORT, SUPPORT, QUERY, SUPPORT)


def wells(w, x, order):
    """f and its first two derivatives."""
    t, a = np.tanh(3 * w), np.where(w.real > 0, w, -w)
    log_cosh = 3 * a + np.log1p(np.exp(-6 * a)) - np.log(2)
    return [w * w / 2 - log_cosh / 3, w - t, 1 - 3 * (1 - t * t)][order]


def query(w, x, order):
    """g = (w - .6)^2/2 + .3 sin 2w and its first two derivatives."""
    return [
        (w - 0.6) ** 2 / 2 + 0.3 * np.sin(2 * w),
        w - 0.6 + 0.6 * np.cos(2 * w),
        1 - 1.2 * np.sin(2 * w),
    ][order]


def by_input(order):
    """A function of (w, x): f where the input is 0, g where it is 1."""
    return lambda w, x: np.where(x[:, 0] == 0, wells(w, x, order), query(w, x, order))


NET = rm.ScalarFunction(*map(by_input, range(3)))


def runs(K, starts):
    """The Runs from many starts, some at a time."""
    parts = [starts[i : i + AT_ONCE] for i in range(0, len(starts), AT_ONCE)]
    found = [noisy_inner_loops.runs_from(NET, rm.MAML(ALPHA, K), part, TASK) for part in parts]
    return noisy_inner_loops.Runs(*map(np.concatenate, zip(*found, strict=True)))


def exact(K, theta=THETA, cell=0.02):
    """The Gradients by nodes that lie densely around the start 0."""
    nodes = noisy_inner_loops.nodes_around(-theta / SIGMA, cell)
    found = runs(K, SIGMA * nodes.distance)  # theta + SIGMA xi, without cancellation
    return noisy_inner_loops.gradients(found, nodes.xi, SIGMA, nodes.weights)


def equidistant(K):
    """The Gradients by equidistant nodes."""
    xi = EQUIDISTANT[:, None]
    weights = np.exp(-(EQUIDISTANT**2) / 2) / np.sqrt(2 * np.pi) * np.diff(EQUIDISTANT)[0]
    return noisy_inner_loops.gradients(runs(K, THETA + SIGMA * xi), xi, SIGMA, weights)


def limit():
    """(dM/dtheta for endless steps, g(p) - g(-p)): the density at 0 times the jump."""
    p = np.float64(1.0)
    for _ in range(200):
        p = np.tanh(3 * p)
    jump = query(p, None, 0) - query(-p, None, 0)
    density = np.exp(-((THETA / SIGMA) ** 2) / 2) / np.sqrt(2 * np.pi)
    return float(density / SIGMA * jump), float(jump)


def numbers(found):
    """The numbers of Gradients as a dict."""
    named = {"pathwise": found.pathwise, "score": found.score, "score, centred": found.centred}
    return {
        name: {"mean": float(e.mean[0]), "deviation": float(e.deviation[0])}
        for name, e in named.items()
    }


def row(K):
    """One row of the table; differences by five points of M, exact by quadrature."""
    h = 1e-3
    M = {i: exact(K, THETA + i * h).value for i in (-2, -1, 1, 2)}
    differences = (8 * (M[1] - M[-1]) - (M[2] - M[-2])) / (12 * h)
    found = exact(K)
    return {
        "K": K,
        "differences": float(differences),
        "exact": numbers(found),
        "equidistant": numbers(equidistant(K)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    args = parser.parse_args()
    slope, jump = limit()
    record = {
        "command": "python benchmarks/double_well.py --out benchmarks/double_well.json",
        "theta": THETA,
        "sigma": SIGMA,
        "alpha": ALPHA,
        "rows": [row(K) for K in STEPS],
        "limit": slope,
        "jump": jump,
    }
    with atomic_write(args.out) as file:
        file.write(json.dumps(record, indent=1).encode() + b"\n")


if __name__ == "__main__":
    main()
