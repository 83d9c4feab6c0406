"""Does a trained start prefer some labels?

    python benchmarks/label_lean.py RUN [RUN ...] --data-root DIR \\
        --out benchmarks/omniglot/label-lean.json

The label of each class is random. So an adapted net should predict each label for one
in n_way of the query examples, and be right about each label equally often. If not, the
training tasks have carried information about labels. Reptile's did, while the
mini-batches of its inner loop took the support set class by class (--support-order
by_class).

RUN is the folder of a run on pictures. Each run is evaluated on its own first held-out
tasks.
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
    """Predictions of a run on its held-out tasks 0 .. tasks - 1.

    Returns (Progress, configuration, labels (T, M), {way: predicted labels (T, M)}).
    """
    now, saved = checkpoint.load(run / CHECKPOINT)
    config = options.reread(saved)
    net = problem.make_net(config)
    method = problem.method_for_evaluation(problem.make_method(config), config, len(now.meta), net)
    sample = problem.sampler(
        problem.make_tasks(config, "test", data_root), config, config["k_shot"]
    )
    labels, predicted = [], {way: [] for way in WAYS}
    for start in bar(range(0, tasks, problem.CHUNK_ON_CPU), desc=str(run)):
        batch = sample(range(start, min(start + problem.CHUNK_ON_CPU, tasks)), HELD_OUT_STEP)
        phi = method.adapted(net, now.meta, batch.x_support, batch.y_support)
        labels.append(batch.y_query)
        for way, together in WAYS.items():
            predicted[way].append(outputs(net, phi, batch, together).argmax(axis=-1))
    return (
        now,
        config,
        np.concatenate(labels),
        {way: np.concatenate(parts) for way, parts in predicted.items()},
    )


def lean(labels, predicted, n_way):
    """Fractions: how often each label is predicted, and the accuracy on each label."""
    right = predicted == labels
    return {
        "accuracy": float(right.mean()),
        "given": [float((predicted == label).mean()) for label in range(n_way)],
        "accuracy by label": [float(right[labels == label].mean()) for label in range(n_way)],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--data-root", metavar="DIR", help="the folder that holds Omniglot")
    parser.add_argument("--tasks", metavar="N", type=int, default=1000, help="held-out tasks")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the result")
    arguments = parser.parse_args()
    found = []
    for run in arguments.runs:
        now, config, labels, predicted = predictions(run, arguments.data_root, arguments.tasks)
        leans = {way: lean(labels, p, config["n_way"]) for way, p in predicted.items()}
        found.append({"steps": now.step, **{name: config[name] for name in SHOWN}, **leans})
        print(run, *(f"{way}: {figures}" for way, figures in leans.items()), sep="\n  ")
    files.write_json(
        arguments.out, {"tasks": arguments.tasks, "runs": found, **report.circumstances()}
    )


if __name__ == "__main__":
    main()
