"""Does what was learned for all tasks lean towards some labels?

    python benchmarks/label_lean.py RUN [RUN ...] --data-root DIR --out benchmarks/omniglot/label-lean.json

Which class of a task is label 0 is drawn, so a net that has adapted to a task should give each label to one in n_way of the query examples,
and be right about each as often. Where it is not, the training tasks told it something about labels: Reptile's did, while the mini-batches
of its inner loop went through support sets that stood class by class (--support-order by_class).

RUN is the folder of a run on pictures. Each is judged on its own held-out tasks, the first ones.
"""

import argparse
from pathlib import Path

import numpy as np

from refmaml.cli import options, problem, report
from refmaml.cli.omniglot.cells import WAYS
from refmaml.cli.run_folder import CHECKPOINT
from refmaml.progress import bar
from refmaml.training import checkpoint, files
from refmaml.training.evaluation import HELD_OUT_STEP, outputs

SHOWN = ("method", "support_order", "inner_batch", "n_way", "k_shot", "k_query", "seed")


def predictions(run, data_root, tasks):
    """(Progress, configuration, labels y (T, M), {way: labels given (T, M)}) of a run on its held-out tasks 0 .. tasks - 1."""
    now, saved = checkpoint.load(run / CHECKPOINT)
    config = options.reread(saved)
    net = problem.make_net(config)
    method = problem.method_for_evaluation(problem.make_method(config), config, len(now.meta), net)
    sample = problem.sampler(
        problem.make_tasks(config, "test", data_root), config, config["k_shot"]
    )
    labels, given = [], {way: [] for way in WAYS}
    for start in bar(range(0, tasks, problem.ON_CPU), desc=str(run)):
        batch = sample(range(start, min(start + problem.ON_CPU, tasks)), HELD_OUT_STEP)
        phi = method.adapted(net, now.meta, batch.x_support, batch.y_support)
        labels.append(batch.y_query)
        for way, together in WAYS.items():
            given[way].append(outputs(net, phi, batch, together).argmax(axis=-1))
    return (
        now,
        config,
        np.concatenate(labels),
        {way: np.concatenate(parts) for way, parts in given.items()},
    )


def lean(labels, given, n_way):
    """How often each label is given, and how often examples of each label are given it: fractions."""
    right = given == labels
    return {
        "accuracy": float(right.mean()),
        "given": [float((given == label).mean()) for label in range(n_way)],
        "accuracy by label": [float(right[labels == label].mean()) for label in range(n_way)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+")
    parser.add_argument("--data-root", metavar="DIR")
    parser.add_argument("--tasks", metavar="N", type=int, default=1000)
    parser.add_argument("--out", metavar="FILE", type=Path, required=True)
    arguments = parser.parse_args()
    found = []
    for run in arguments.runs:
        now, config, labels, given = predictions(run, arguments.data_root, arguments.tasks)
        leans = {way: lean(labels, g, config["n_way"]) for way, g in given.items()}
        found.append({"steps": now.step, **{name: config[name] for name in SHOWN}, **leans})
        print(run, *(f"{way}: {figures}" for way, figures in leans.items()), sep="\n  ")
    files.write_json(
        arguments.out, {"tasks": arguments.tasks, "runs": found, **report.circumstances()}
    )


if __name__ == "__main__":
    main()
