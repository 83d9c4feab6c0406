"""What meta-training does to the curvature that iMAML's inner solver meets.

    python benchmarks/imaml_curvature.py --data-root DIR --runs FOLDER --out FILE.json
        --picture FILE.png [--steps N] [--minutes M]

Trains iMAML on Omniglot, 5-way 1-shot, in the three settings of
refmaml/cli/imaml_presets.py, all with the same tasks: those of SAME. Every EVERY
meta-steps it takes PROBED fixed training tasks and measures, at theta and at phi, the
largest eigenvalue of the support loss's Hessian (Lanczos, scipy's eigsh, on refmaml's
Hessian-vector products), the residual of the inner problem, and that of the linear
system after its conjugate gradients.

The settings take turns, EVERY meta-steps each. A run that overflows ends there. FOLDER
has a checkpoint for each setting: the same command continues from them. The result says
how many steps each setting has taken. At the end it has the accuracy of each setting on
600 held-out tasks, judged in both ways of `refmaml reproduce omniglot`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy.sparse.linalg import eigsh

from refmaml.cli import options, problem
from refmaml.cli.imaml_presets import PAPER, RELEASED, WORKS
from refmaml.cli.omniglot.cells import WAYS
from refmaml.environment import circumstances
from refmaml.errors import NonFiniteError
from refmaml.operators import CurvatureOperator
from refmaml.training import checkpoint, files, train
from refmaml.training.rows import RESIDUALS

SETTINGS = {
    "paper": ("as the paper writes it", PAPER),
    "released": ("as the authors' program is released", RELEASED),
    "works": ("zero head, lambda 20, step control", WORKS),
}
# Options that are the same in all settings.
SAME = {"tasks": 8, "k_query": 5, "kernels": "cpu", "chunk": 8}
EVERY, PROBED, PROBE_STEP = 25, 4, 10**6  # the tasks probed are those of a step never taken
ACCURACY = 1e-2  # relative, of an eigenvalue
CURVE = ("step", "loss", "accuracy", *RESIDUALS)


class Run:
    """One setting: its recipe, its Progress, and its probes so far."""

    def __init__(self, name, folder, known, place):
        self.title, preset = SETTINGS[name]
        self.config = options.settle(preset | SAME)
        self.net, self.method = problem.make_net(self.config, 1), problem.make_method(self.config)
        distribution = problem.make_tasks(self.config, "train", **place)
        self.recipe = problem.make_recipe(self.config, self.net, self.method, distribution)
        self.place = place
        self.path, self.diverged = files.make_folder(folder / name) / "checkpoint.npz", None
        self.now = self.recipe.start(self.net.init(self.config["seed"], self.config["dtype"]))
        self.probes, self.held_out = [], {}
        if self.path.exists():
            self.now, _ = checkpoint.load(self.path)
            self.probes = known.get(name, {}).get("probes", [])
        self.batch = self.recipe.sample(PROBE_STEP)[:PROBED]

    def advance(self):
        """EVERY meta-steps, and a probe; nothing after a run has overflowed."""
        try:
            if not self.probes:
                self.probe()
            self.now = train(self.recipe, self.now, steps=self.now.step + EVERY)
            checkpoint.save(self.path, self.now, self.config)
            self.probe()
        except NonFiniteError as error:
            self.diverged = str(error)

    def probe(self):
        """Append the figures of the probed tasks at the present theta."""
        theta = self.now.meta
        out = self.method.task_gradients(self.net, theta, self.batch, True)
        phi = np.broadcast_to(out.trace["phi"][-1], (PROBED, len(theta)))
        self.probes.append(
            {
                "step": self.now.step,
                "eigenvalue_at_theta": [self.eigenvalue(theta, t) for t in range(PROBED)],
                "eigenvalue_at_phi": [self.eigenvalue(phi[t], t) for t in range(PROBED)],
                "inner_residual": rounded(out.report["inner_residual"]),
                "cg_residual": rounded(out.report["cg_residual"]),
                "cg_status": [
                    str(s) for s in self.method.status_labels["cg_status"][out.report["cg_status"]]
                ],
            }
        )

    def eigenvalue(self, w, t):
        """The largest eigenvalue of task t's Hessian at w (P,)."""
        x, y = self.batch.x_support[t : t + 1], self.batch.y_support[t : t + 1]
        H = CurvatureOperator(self.net, self.net.hvp, w, x, y)
        start = np.random.default_rng(0).standard_normal(len(w)).astype(w.dtype)
        return rounded(eigsh(H, 1, which="LA", tol=ACCURACY, v0=start, return_eigenvectors=False))[
            0
        ]

    def judge(self):
        """Accuracy on held-out tasks at the present theta, in each of WAYS.

        Adaptation may overflow where a run has diverged: then there is none.
        """
        evaluator = problem.make_evaluators(
            self.config, self.net, self.method, len(self.now.meta), WAYS.values(), **self.place
        )
        self.held_out = {"tasks": self.config["eval_tasks"], "step": self.now.step}
        try:
            found = evaluator(self.now.meta)
        except NonFiniteError as error:
            self.held_out["overflow"] = str(error)
        else:
            for way, e in zip(WAYS, found, strict=True):
                self.held_out[way] = {"accuracy": e.mean, "interval": e.interval}

    def record(self):
        """The setting, its probes, and its curve, EVERY steps at a time (means)."""
        table = [self.now.rows.column(name) for name in CURVE]
        parts = range(0, self.now.step, EVERY)
        curve = {
            name: rounded([column[i : i + EVERY].mean() for i in parts])
            for name, column in zip(CURVE[1:], table[1:], strict=True)
        }
        residual = self.now.rows.column("inner_residual")
        return {
            "title": self.title,
            "options": self.config,
            "steps": self.now.step,
            "seconds": round(self.now.seconds, 1),
            "diverged": self.diverged,
            "steps_with_inner_residual_above_0.1": int((residual > 0.1).sum()),
            "largest_inner_residual": rounded([residual.max(initial=0)])[0],
            "curve": {"up_to_step": [min(i + EVERY, self.now.step) for i in parts], **curve},
            "held_out": self.held_out,
            "probes": self.probes,
        }


def rounded(values):
    return [float(f"{v:.4g}") for v in np.asarray(values, np.float64)]


def draw(path, runs):
    """Four panels over meta-steps: eigenvalue, both residuals, accuracy.

    Medians over the probed tasks; the eigenvalue at phi is dashed.
    """
    from matplotlib.figure import Figure

    from refmaml.training.plot import apply_style, save_figure, set_logarithmic

    figure = Figure(figsize=(13, 6.4), dpi=130, layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for run, color in zip(runs.values(), ("#c8553d", "#2a6f97", "#6a8d3a"), strict=False):
        steps = [p["step"] for p in run["probes"]]
        style = {"color": color, "linewidth": 1.6, "label": run["title"]}
        for axes, name in zip(
            panels, ("eigenvalue_at_theta", "inner_residual", "cg_residual"), strict=False
        ):
            axes.plot(steps, [np.median(p[name]) for p in run["probes"]], **style)
        at_phi = [np.median(p["eigenvalue_at_phi"]) for p in run["probes"]]
        panels[0].plot(steps, at_phi, "--", color=color, linewidth=1.0)
        panels[3].plot(run["curve"]["up_to_step"], run["curve"]["accuracy"], **style)
    labels = ("largest eigenvalue of H", "residual of the inner problem", "residual of CG")
    for axes, label in zip(panels, (*labels, "query accuracy in training"), strict=True):
        apply_style(axes, "meta-step", label)
    for axes in panels[:2]:
        set_logarithmic(axes)
    panels[2].set_yscale("log")  # over ten decades
    panels[0].set_title("at theta; dashed: at phi", fontsize=9)
    panels[0].legend(frameon=False, fontsize=9)
    save_figure(path, figure)


def write(given, known, runs):
    """The records of these runs and of those of earlier calls, and the picture."""
    records = known | {name: run.record() for name, run in runs.items()}
    result = {"schema": 1, "probed": PROBED, "every": EVERY, "runs": records}
    files.write_json(given.out, result | circumstances())
    draw(given.picture, records)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", required=True, help="the folder that holds Omniglot")
    parser.add_argument("--runs", required=True, type=Path, help="where checkpoints are")
    parser.add_argument("--out", required=True, type=Path, help="the JSON file to write")
    parser.add_argument("--picture", required=True, type=Path, help="the PNG to write")
    parser.add_argument("--steps", type=int, default=5000, help="meta-steps (default 5000)")
    parser.add_argument("--minutes", type=float, default=np.inf, help="stop after this time")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    given = parser.parse_args(argv)
    end = time.monotonic() + 60 * given.minutes
    known = json.loads(given.out.read_text())["runs"] if given.out.exists() else {}
    place = {"data_root": given.data_root}
    runs = {name: Run(name, given.runs, known, place) for name in given.settings}
    while time.monotonic() < end:
        going = [r for r in runs.values() if not r.diverged and r.now.step < given.steps]
        if not going:
            break
        min(going, key=lambda run: run.now.step).advance()
        write(given, known, runs)
    for run in runs.values():
        run.judge()
    write(given, known, runs)
    print({name: run.now.step for name, run in runs.items()})


if __name__ == "__main__":
    main()
