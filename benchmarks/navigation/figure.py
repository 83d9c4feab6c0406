"""The figure of 2-D navigation: mean return after 0 to 3 updates on 40 held-out goals.

    python benchmarks/navigation/figure.py --folder runs/navigation --step N
        --estimators-at M --out benchmarks/navigation

Reads the checkpoints of runs.py, and writes navigation.json, returns.png and paths.png.
Every policy gets the same goals, 40 trajectories for each update, and the step sizes
alpha, alpha/2, alpha/2, with alpha = 0.5 unless stated.

    equal        MAML, pretrained (erm) and untrained policies, each seed at step N
    pretrained   one pretrained run at each stop, with other sigmas and other alphas
    estimators   one seed of each estimator and method at step M, and MAML's other seeds
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from runs import KINDS, SEEDS, STOPS, stopped

from refmaml.cli import returns
from refmaml.environment import circumstances
from refmaml.training import checkpoint, files
from refmaml.training.policy_evaluation import goals_and_noise

UPDATES, GOALS, GOAL_SEED = 3, 40, 0
STUDENT = 4.303  # of three numbers: the 97.5 % quantile with two degrees of freedom
SIGMAS, RATES = (1.0, 0.3), (0.1, 0.02)  # of the pretrained policy
TITLES = {
    "maml": "MAML, naive",
    "lvc": "MAML, LVC",
    "dice": "MAML, DiCE",
    "fomaml": "first order",
    "reptile": "Reptile",
    "erm": "pretrained",
}


def evaluate(path, draws, inner_lr=None, sigma=None, untrained=False):
    """{"return", "interval"} after 0, 1, ... updates, of the policy in a checkpoint."""
    starts = returns.load([path], inner_lr, sigma)
    start = starts[returns.UNTRAINED] if untrained else next(iter(starts.values()))
    values, _ = returns.adapted(start, draws)
    means, halves = zip(*map(returns.interval, values), strict=True)
    return {"return": list(means), "interval": list(halves), "sigma": sigma_of(start)}


def sigma_of(start):
    """The mean of the policy's sigmas."""
    return float(np.exp(start.policy.log_sigma(start.theta[None])).mean())


def over_seeds(parts):
    """Means over seeds, and the half-width of the 95 % interval by Student's t."""
    values = np.array([part["return"] for part in parts])
    half = STUDENT * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return {"seeds": len(values), "return": values.mean(axis=0).tolist(), "interval": half.tolist()}


def equal_iterations(folder, step, draws):
    """{title: {"each": {seed: .}, "over": .}} of MAML, pretrained and untrained."""
    wanted = (("MAML", "maml", False), ("pretrained", "erm", False), ("untrained", "maml", True))
    found = {}
    for title, kind, untrained in wanted:
        paths = {seed: stopped(folder / f"{kind}-{seed}", step) for seed in SEEDS}
        each = {
            str(seed): evaluate(path, draws, untrained=untrained)
            for seed, path in paths.items()
            if path.exists()
        }
        found[title] = {"each": each}
        if len(each) == len(SEEDS):
            found[title]["over"] = over_seeds(list(each.values()))
    return found


def pretrained(folder, step, draws):
    """{title: .} of one pretrained run at its stops; sigmas and rates at step N."""
    paths = {stop: stopped(folder / "erm-0", stop) for stop in STOPS if stop <= step}
    found = {f"step {stop}": evaluate(path, draws) for stop, path in paths.items() if path.exists()}
    last = partial(evaluate, paths[step], draws)
    found |= {f"step {step}, sigma {sigma:g}": last(sigma=sigma) for sigma in SIGMAS}
    return found | {f"step {step}, alpha {rate:g}": last(inner_lr=rate) for rate in RATES}


def estimators(folder, step, draws):
    """{title: .} of every kind of run, seed 0, at a step, and MAML's other seeds."""
    runs = {TITLES[kind]: f"{kind}-0" for kind in KINDS}
    runs |= {f"{TITLES['maml']}, seed {seed}": f"maml-{seed}" for seed in SEEDS[1:]}
    paths = {title: stopped(folder / name, step) for title, name in runs.items()}
    return {title: evaluate(path, draws) for title, path in paths.items() if path.exists()}


def training(folder, step):
    """{run: steps, and the processor's minutes of its meta-steps}

    return_in_training  the mean after adaptation over the ten meta-steps before the one
                        that leads to step M
    """
    found = {}
    for path in sorted(folder.glob("*/checkpoint.npz")):
        now, _ = checkpoint.load(path)
        if not now.step:
            continue
        seconds = now.rows.column("processor_seconds")
        found[path.parent.name] = {
            "steps": now.step,
            "processor_minutes": float(seconds.sum() / 60),
            "processor_seconds_of_a_step": float(np.median(seconds)),
            "return_in_training": -float(now.rows.column("loss")[step - 11 : step - 1].mean()),
        }
    return found


def panel(curves):
    """{title: [(mean, half-width), ...]}"""
    return {
        title: list(zip(part["return"], part["interval"], strict=True))
        for title, part in curves.items()
    }


def pictures(out, folder, record, draws):
    """returns.png and paths.png."""
    equal = {
        f"{title}, seed {seed}": part
        for title, parts in record["equal"].items()
        for seed, part in parts["each"].items()
    }
    top = record["best_possible"]
    equal["best possible"] = {"return": [top] * (UPDATES + 1), "interval": [0.0] * (UPDATES + 1)}
    panels = [
        (f"{record['step']} meta-steps", panel(equal)),
        ("the pretrained policy, seed 0", panel(record["pretrained"])),
        (f"{record['estimators_at']} meta-steps", panel(record["estimators"])),
    ]
    returns.picture_of_returns(out / "returns.png", panels)
    path = stopped(folder / "maml-0", record["step"])
    start = next(iter(returns.load([path]).values()))
    few = draws.tasks(slice(0, returns.PICTURED))
    _, paths = returns.adapted(start, few, returns.PICTURED)
    returns.picture_of_paths(out / "paths.png", paths, few.goals)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="runs/navigation", type=Path)
    parser.add_argument("--step", type=int, default=STOPS[-1])
    parser.add_argument("--estimators-at", type=int, default=STOPS[-1])
    parser.add_argument("--out", default="benchmarks/navigation", type=Path)
    given = parser.parse_args()
    draws = goals_and_noise(GOALS, UPDATES, GOAL_SEED)
    record = {
        "step": given.step,
        "estimators_at": given.estimators_at,
        "best_possible": float(returns.best(draws.goals).mean()),
        "equal": equal_iterations(given.folder, given.step, draws),
        "pretrained": pretrained(given.folder, given.step, draws),
        "estimators": estimators(given.folder, given.estimators_at, draws),
        "training": training(given.folder, given.estimators_at),
    }
    pictures(given.out, given.folder, record, draws)
    files.write_json(given.out / "navigation.json", record | circumstances())


if __name__ == "__main__":
    main()
