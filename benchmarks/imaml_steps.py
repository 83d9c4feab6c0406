"""Why iMAML's published step size does not suit every net: python benchmarks/imaml_steps.py --data-root DIR [--run RUN ...] --out FILE

At the start of training, on TASKS training tasks, for the net of each protocol: the largest curvature of the support loss (power
iteration), and for some inner step sizes how far the loop ends from the solution that the implicit gradient is meant for, and how well
the published five iterations of conjugate gradients solve the outer system. --run adds the curves of runs, such as one that diverged.
"""
import argparse
from dataclasses import replace

import numpy as np

from refmaml.cli import problem, report
from refmaml.cli.omniglot import protocols
from refmaml.cli.run_folder import CHECKPOINT
from refmaml.doctor.cases import sharpness
from refmaml.training import checkpoint, files

TASKS, STEP, ITERATIONS = 16, 7, 30                      # how many tasks, of which meta-step; iterations of the power method
STEP_SIZES = (0.1, 0.03, 0.01)
SHOWN = 25                                               # parts of a run's curve


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", required=True, help="the folder that holds Omniglot")
    parser.add_argument("--run", nargs="*", default=[], help="folders of runs of iMAML")
    parser.add_argument("--out", required=True, help="where the result goes")
    arguments = parser.parse_args(argv)
    starts = {name: at_start(protocols.configuration(name, "imaml", "5w1s"), arguments.data_root) for name in protocols.PROTOCOLS}
    files.write_json(arguments.out, {"schema": 1, "tasks": TASKS, "at_start": starts, "runs": [curve(run) for run in arguments.run],
                                     **report.circumstances()})


def at_start(config, root):
    """Curvature, and what each step size comes to."""
    net, method = problem.make_net(config), problem.make_method(config)
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train", data_root=root))
    theta, batch = net.init(config["seed"], config["dtype"]), recipe.sample(STEP)[:TASKS]
    everything = np.ones(len(theta), theta.dtype)
    sharp = [sharpness(net, theta, batch[t:t + 1], everything, ITERATIONS) for t in range(TASKS)]
    rows = [came_to(net, replace(method, inner_lr=lr), theta, batch) for lr in STEP_SIZES]
    return {"weight_gain": config["weight_gain"], "sharpness": quartiles(sharp), "inner_steps": method.inner_steps,
            "regularization": method.regularization, "step_sizes": rows}


def came_to(net, method, theta, batch):
    """One step size: what the inner loop leaves, and the outer solve."""
    found = method.task_gradients(net, theta, batch, trace=False)
    return {"inner_lr": method.inner_lr, "inner_residual": quartiles(found.report["inner_residual"]),
            "cg_residual": quartiles(found.report["cg_residual"]),
            "negative_curvature": int((found.report["cg_status"] == "negative_curvature").sum())}


def curve(folder):
    """A run as far as it came: its settings, and medians over SHOWN parts of it."""
    now, config = checkpoint.load(f"{folder}/{CHECKPOINT}")
    columns = {name: np.array_split(now.rows.column(name), SHOWN) for name in ("step", "loss", "accuracy", "cg_residual")}
    last = columns.pop("step")
    return {"configuration": config, "last_step": [int(part[-1]) for part in last],
            **{name: [float(f"{np.median(part):.4g}") for part in parts] for name, parts in columns.items()}}


def quartiles(values):
    """[lower quartile, median, upper quartile]."""
    return [float(f"{v:.4g}") for v in np.percentile(np.asarray(values, np.float64), (25, 50, 75))]


if __name__ == "__main__":
    main()
