"""What LLAMA's weight eta does on sine waves: runs of `refmaml train`, compared.

    python benchmarks/llama_sinusoids.py RUN ... --out benchmarks/llama_sinusoids.json

Each RUN is a folder of `refmaml train --data sinusoid --inner-steps 5 --inner-lr 0.01
--kernels reference`, of --method maml or llama. The mean of M in training is taken over
two hundred meta-steps that all runs have; the held-out loss has no Laplace term.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from refmaml.cli import options, problem, report
from refmaml.training import checkpoint

WINDOW, TASKS = (1800, 2000), 300


def measured(folder):
    """A row for one run."""
    now, saved = checkpoint.load(str(Path(folder) / "checkpoint.npz"))
    config = options.reread(saved) | {"eval_tasks": TASKS}
    net, method = problem.make_net(config, None), problem.make_method(config)
    held_out = problem.make_evaluator(config, net, method, len(now.meta))(now.meta)
    with open(Path(folder) / "curve.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    return {
        "method": config["method"],
        "weight": getattr(method, "weight", 0.0),
        "curvature": getattr(method, "curvature", None),
        "training": float(np.mean(losses[slice(*WINDOW)])),
        "meta_steps": len(losses),
        "held_out": held_out.mean,
        "interval": held_out.interval,
    }


def main():
    """Measure every run and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    rows = [measured(run) for run in arguments.runs]
    about = {"window": WINDOW, "tasks": TASKS, **report.circumstances()}
    Path(arguments.out).write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
