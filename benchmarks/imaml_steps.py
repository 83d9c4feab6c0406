"""Why iMAML has a shorter inner step on the net of the equal protocol.

    python benchmarks/imaml_steps.py --data-root DIR --out FILE [RUN ...]

Measured on TASKS training tasks, at the start of each protocol's training and at the
end of each RUN (a folder): the largest curvature of the support loss at theta, by power
iteration; and, for several inner step sizes, the support loss after the inner loop, the
residual of the inner problem (the implicit gradient assumes 0), and the residual of the
outer system after five iterations of conjugate gradients.
"""

import argparse
from dataclasses import replace

import numpy as np

from refmaml.cli import options, problem, report
from refmaml.cli.omniglot import protocols
from refmaml.cli.run_folder import CHECKPOINT
from refmaml.doctor.method_settings import sharpness
from refmaml.errors import NonFiniteError
from refmaml.training import checkpoint, files

TASKS, STEP = 16, 7  # the number of tasks, and the meta-step that samples them
ITERATIONS = 30  # of the power method
STEP_SIZES = (0.1, 0.03, 0.01)
SHOWN = 25  # parts into which a run's curve is divided


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of runs of iMAML")
    parser.add_argument("--data-root", required=True, help="the folder that holds Omniglot")
    parser.add_argument("--out", required=True, help="where the result goes")
    given = parser.parse_args(argv)
    starts = {
        name: at_start(protocols.configuration(name, "imaml", "5w1s"), given.data_root)
        for name in ("as-published", "equal")
    }
    runs = [of_run(run, given.data_root) for run in given.runs]
    files.write_json(
        given.out,
        {"schema": 1, "tasks": TASKS, "at_start": starts, "runs": runs, **report.circumstances()},
    )


def at_start(config, root):
    """The inner loop at the initial parameters of training."""
    return at(config, root, problem.make_net(config).init(config["seed"], config["dtype"]))


def of_run(folder, root):
    """A run: settings, medians over SHOWN parts of its curve, the loop at its end."""
    now, config = checkpoint.load(f"{folder}/{CHECKPOINT}")
    config, parts = options.reread(config), min(SHOWN, now.step)
    columns = {
        name: np.array_split(now.rows.column(name), parts)
        for name in ("step", "loss", "accuracy", "cg_residual")
    }
    last = [int(part[-1]) for part in columns.pop("step")]
    curve = {
        "up_to_step": last,
        **{name: [rounded(np.median(part)) for part in parts] for name, parts in columns.items()},
    }
    return {"configuration": config, "curve": curve, "at_end": at(config, root, now.meta)}


def at(config, root, theta):
    """At theta: the curvature, and the result of the inner loop with each step size."""
    net, method = problem.make_net(config), problem.make_method(config)
    batch = problem.make_recipe(
        config, net, method, problem.make_tasks(config, "train", data_root=root)
    ).sample(STEP)[:TASKS]
    mask = np.ones(len(theta), theta.dtype)
    sharp = [sharpness(net, theta, batch[t : t + 1], mask, ITERATIONS) for t in range(TASKS)]
    before = net.loss(np.broadcast_to(theta, (TASKS, len(theta))), batch.x_support, batch.y_support)
    return {
        "sharpness": quartiles(sharp),
        "support_loss": quartiles(before),
        "step_sizes": [
            inner_loop_result(net, replace(method, inner_lr=lr), theta, batch) for lr in STEP_SIZES
        ],
    }


def inner_loop_result(net, method, theta, batch):
    """The result with one step size; "refused": what overflowed."""
    try:
        found = method.task_gradients(net, theta, batch, trace=True)
    except NonFiniteError as error:
        return {"inner_lr": method.inner_lr, "refused": str(error)}
    after, status = net.loss(found.trace["phi"][-1], batch.x_support, batch.y_support), found.report
    return {
        "inner_lr": method.inner_lr,
        "support_loss": quartiles(after),
        "inner_residual": quartiles(status["inner_residual"]),
        "cg_residual": quartiles(status["cg_residual"]),
        "negative_curvature": int((status["cg_status"] == "negative_curvature").sum()),
    }


def quartiles(values):
    """[lower quartile, median, upper quartile]."""
    return [rounded(v) for v in np.percentile(np.asarray(values, np.float64), (25, 50, 75))]


def rounded(value):
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main()
