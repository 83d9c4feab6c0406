"""Learners inside and outside of the range of training, on sine waves.

    python benchmarks/extrapolation/measure.py --runs RUNS --steps 30000
    python benchmarks/extrapolation/picture.py

The first command trains MAML, a conditional neural process (CNP) and joint training
(ERM) with three seeds each, as far as their folders in RUNS have not got yet, and
measures all of them on the same waves: of the training range, of larger amplitudes, and
of other phases. It writes extrapolation.json beside this file. MAML and ERM adapt by
the same steps. Errors are mean squares at POINTS further points of each wave.
Source of the question: Finn & Levine 2018, section 5.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from refmaml.cli import options, problem
from refmaml.cli.main import main as refmaml
from refmaml.cli.run_folder import CHECKPOINT
from refmaml.environment import circumstances
from refmaml.tasks import Sinusoids
from refmaml.training import checkpoint, files
from refmaml.training.evaluation import Evaluation

HERE = Path(__file__).parent
SEEDS, TASKS, POINTS, SHOTS = (0, 1, 2), 300, 100, 10
ADAPTED = (0, 1, 2, 5, 10, 20, 50)  # inner steps after which the error is measured
ALPHA = 0.01
HELD_OUT_SEED, AT_ONCE = 10**6, 25
METHODS = {
    "cnp": ("--method", "cnp", "--kernels", "reference"),
    "maml": ("--method", "maml", "--inner-steps", "5", "--inner-lr", str(ALPHA)),
    "erm": ("--method", "erm"),
}
THREADS = {"cnp": (), "maml": ("--threads", "1"), "erm": ("--threads", "1")}
PI = np.pi
ROWS = {
    "training range": {},
    "A 5-6": {"amplitude": (5, 6)},
    "A 6-8": {"amplitude": (6, 8)},
    "A 8-10": {"amplitude": (8, 10)},
    "phase 1-1.25 pi": {"phase": (PI, 1.25 * PI)},
    "phase 1.25-1.5 pi": {"phase": (1.25 * PI, 1.5 * PI)},
    "phase 1.5-1.75 pi": {"phase": (1.5 * PI, 1.75 * PI)},
    "A 5-10, phase 1-2 pi": {"amplitude": (5, 10), "phase": (PI, 2 * PI)},
}


# ---- training ------------------------------------------------------------------------


def train(folder, name, seed, steps):
    """Train a run, or go on with it, up to `steps` meta-steps."""
    if (folder / CHECKPOINT).exists():
        if checkpoint.load(folder / CHECKPOINT)[0].step >= steps:
            return
        words = ["--resume"]
    else:
        words = ["--data", "sinusoid", *METHODS[name], "--seed", str(seed)]
        words += ["--encoder-seed", str(seed)] if name == "cnp" else []
    words += ["--steps", str(steps), *THREADS[name], "--out", str(folder), "--quiet"]
    status = refmaml(["train", *words])
    if status:
        raise SystemExit(f"refmaml train: expected exit status 0, got {status}")


class Run:
    """A trained run: net, method, meta-parameters, and how it was trained."""

    def __init__(self, folder):
        now, config = checkpoint.load(folder / CHECKPOINT)
        self.config = options.reread(config) | {"kernels": "reference"}
        self.net = problem.make_net(self.config)
        self.method = problem.make_method(self.config)
        self.meta, self.steps = np.asarray(now.meta, np.float64), now.step

    def milliseconds(self, calls=20):
        """Processor time of one meta-gradient of training's size, in milliseconds."""
        batch = Sinusoids().sample(self.config["tasks"], seed=1)
        meta = self.meta.astype(np.float32)
        self.method.meta_gradient(self.net, meta, batch)
        started = time.process_time()
        for _ in range(calls):
            self.method.meta_gradient(self.net, meta, batch)
        return round(1000 * (time.process_time() - started) / calls, 2)


# ---- errors on some waves ------------------------------------------------------------


def means(net, phi, x):
    """The predicted means (T, N, 1) of x at phi (T or 1, P)."""
    return net.forward(net.parameters.views(phi), x, keep=False)[0][..., :1]


def squared_errors(net, phi, batch):
    """(T,): mean squares on the query sets."""
    return ((means(net, phi, batch.x_query) - batch.y_query) ** 2).mean(axis=(1, 2))


def errors(run, batch):
    """{inner steps: (T,)}, and {"5 diverged": (T,)} with 1 where steps raised the loss.

    Far outside of the range of training a step can be too long. So a task keeps, of the
    parameters up to step k, those with the smallest loss on its support set, which a
    learner sees. The CNP takes no steps, and has one entry, "0".
    """
    if run.config["method"] == "cnp":
        phi = run.method.adapt(run.net, run.meta, batch.x_support, batch.y_support)
        return {"0": squared_errors(run.net, phi, batch)}
    phi, found = np.tile(run.meta, (len(batch), 1)), {}
    best, start, lowest = phi.copy(), None, np.full(len(batch), np.inf)
    for k in range(max(ADAPTED) + 1):
        primal = run.net.primal(phi, batch.x_support, batch.y_support, keep=False)
        start = primal.loss if k == 0 else start
        lowest = np.fmin(lowest, primal.loss)
        best[primal.loss <= lowest] = phi[primal.loss <= lowest]
        if k in ADAPTED:
            found[str(k)] = squared_errors(run.net, best, batch)
            found[f"{k} diverged"] = 1.0 - (primal.loss <= start)
        phi = phi - ALPHA * primal.grad
    return found


def tasks_of(row):
    """The held-out waves of a row, some at a time."""
    waves = Sinusoids(**ROWS[row])
    for first in range(0, TASKS, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, TASKS))
        yield waves.sample(numbers, SHOTS, POINTS, seed=HELD_OUT_SEED, dtype=np.float64)


def over_seeds(runs, row):
    """{name: {key of `errors`: (seeds, T)}}, with "predict 0" among the names."""
    parts = []
    for batch in tasks_of(row):
        part = {name: [errors(run, batch) for run in some] for name, some in runs.items()}
        part["predict 0"] = [{"0": (batch.y_query**2).mean(axis=(1, 2))}]
        parts.append(part)
    return {
        name: {k: np.concatenate([[e[k] for e in part[name]] for part in parts], axis=1) for k in
               parts[0][name][0]}
        for name in parts[0]
    }  # fmt: skip


# ---- what is written -----------------------------------------------------------------


def summary(values):
    """Mean over seeds and tasks of values (seeds, T), its interval, each seed's mean.

    The 95 % interval is over tasks, of the mean over seeds.
    """
    by_task = values.mean(axis=0)
    found = Evaluation("loss", by_task)
    seeds = [round(float(mean), 4) for mean in values.mean(axis=1)]
    return {"mean": round(found.mean, 4), "interval": round(found.interval, 4),
            "seeds": seeds}  # fmt: skip


def diverged(by_steps, k):
    """How many tasks of all seeds have a larger support loss after k steps."""
    marks = by_steps.get(f"{k} diverged")
    return {} if marks is None else {"diverged": int(marks.sum())}


def record_of(row, runs):
    """The figures of a row, with the differences CNP minus MAML task by task."""
    found = over_seeds(runs, row)
    figures = {
        name: {k: summary(values) | diverged(by_steps, k) for k, values in by_steps.items()
               if "diverged" not in k}
        for name, by_steps in found.items()
    }  # fmt: skip
    lead = {k: summary(found["cnp"]["0"] - found["maml"][k]) for k in ("5", "50")}
    settings = {name: [round(float(v), 6) for v in ROWS[row][name]] for name in ROWS[row]}
    return {"name": row, **settings, "errors": figures, "cnp_minus_maml": lead}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--steps", type=int, default=30000, help="meta-steps (default 30000)")
    parser.add_argument("--out", type=Path, default=HERE / "extrapolation.json")
    given = parser.parse_args(argv)
    runs = {}
    for name in METHODS:
        for seed in SEEDS:
            folder = given.runs / f"{name}-{seed}"
            train(folder, name, seed, given.steps)
            runs.setdefault(name, []).append(Run(folder))
    trained = {
        name: {
            "options": " ".join(METHODS[name]),
            "parameters": len(some[0].meta),
            "meta_steps": [run.steps for run in some],
            "processor_ms_per_meta_gradient": some[0].milliseconds(),
        }
        for name, some in runs.items()
    }
    record = {
        "schema": 1, "seeds": list(SEEDS), "tasks": TASKS, "points": POINTS, "shots": SHOTS,
        "alpha": ALPHA, "runs": trained, "rows": [record_of(row, runs) for row in ROWS],
        **circumstances(),
    }  # fmt: skip
    files.write_json(given.out, record)


if __name__ == "__main__":
    main()
