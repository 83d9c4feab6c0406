"""How much of training's time is spent outside the engine?

    python benchmarks/reliability/outside.py [--seconds 20] [--data-root DIR]
        [--kernels auto] [--out benchmarks/reliability]

Outside is waiting for tasks, logging, saving and showing. The script trains as `refmaml
train` does, into a folder, with a checkpoint every `--save-every` seconds, on sinusoid,
glyphs and, with --data-root, the preset maml-omniglot-5w1s. The engine is a meta-step
(gradient and update) from sampled tasks; the rest of the loop's wall-clock time is
outside. Each is measured twice: with the next step's tasks sampled in a thread, as in
`refmaml train`, and in line, for comparison.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from refmaml.cli import options, problem
from refmaml.cli.run_folder import RunFolder
from refmaml.storage.locks import sole_writer
from refmaml.training import train, trainer
from refmaml.training.meta_step import MetaStep

SCHEMA, GOAL = "refmaml-outside-1", 0.05


class Timed:
    """A function whose calls are timed."""

    def __init__(self, function):
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments):
        started = time.perf_counter()
        try:
            return self.function(*arguments)
        finally:
            self.seconds += time.perf_counter() - started


@contextmanager
def waits_timed(line):
    """A context with the list of the Timed samplers of the runs within it.

    line  sample in the training loop, not ahead in a thread
    """
    before, waits = trainer.prefetch, []

    @contextmanager
    def timed(sample, steps=None):
        with nullcontext(sample) if line else before(sample, steps) as prepared:
            waits.append(Timed(prepared))
            yield waits[-1]

    trainer.prefetch = timed
    try:
        yield waits
    finally:
        trainer.prefetch = before


def measure(config, where, seconds, save_every, folder, line):
    """{"steps", "ms_per_step", "outside"} of one run."""
    net, method = problem.make_net(config), problem.make_method(config)
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train", **where))
    # Three steps compile the kernels and fill the caches.
    now = train(recipe, recipe.start(net.init(config["seed"], config["dtype"])), steps=3)
    step, kept = (
        Timed(MetaStep() if net.kernels.on_device else recipe.meta_step),
        RunFolder(folder, config),
    )
    started, first = time.perf_counter(), now.step

    def show(now):
        kept.latest = now

    with sole_writer(folder), waits_timed(line) as waits:
        now = train(
            replace(recipe, meta_step=step),
            now,
            minutes=(now.seconds + seconds) / 60,
            show=show,
            save=kept.save,
            save_every=save_every,
        )
    wall, steps = time.perf_counter() - started, now.step - first
    return {
        "steps": steps,
        "ms_per_step": round(1e3 * wall / steps, 3),
        "outside": round(1 - (step.seconds - waits[0].seconds) / wall, 4),
    }


def main(argv=None):
    """Returns the exit status: 1 if a fraction is above GOAL."""
    from refmaml.environment import circumstances
    from refmaml.training.files import make_folder, write_json

    given = parse(argv)
    runs = {"sinusoid": ({"data": "sinusoid"}, {}), "glyphs": ({"data": "glyphs"}, {})}
    if given.data_root:
        preset = {"preset": "maml-omniglot-5w1s"}
        runs["maml-omniglot-5w1s"] = (preset, {"data_root": given.data_root})
    found = {name: measure_both(*runs[name], given) for name in given.only or runs}
    command = f"python benchmarks/reliability/outside.py --seconds {given.seconds:g}"
    record = {
        "schema": SCHEMA,
        "command": command + " --data-root DIR" * bool(given.data_root),
        "goal": GOAL,
        "runs": found,
        **circumstances(),
    }
    print(json.dumps(record, indent=2))
    if given.out:
        write_json(make_folder(given.out) / "outside.json", record)
    return int(any(run["ahead"]["outside"] > GOAL for run in found.values()))


def measure_both(settings, where, given):
    """{"ahead": ..., "in_line": ...}: tasks sampled in a thread, and in the loop."""
    config = options.settle(settings | {"minutes": 1.0, "kernels": given.kernels})
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for how in ("ahead", "in_line"):
            results[how] = measure(
                config, where, given.seconds, given.save_every, Path(folder), how == "in_line"
            )
    return results


def parse(argv):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="of training, for each figure")
    parser.add_argument("--save-every", type=float, default=5, help="seconds between checkpoints")
    parser.add_argument("--data-root", help="the folder that holds Omniglot")
    parser.add_argument("--kernels", default="auto", help="the kernel set")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("sinusoid", "glyphs", "maml-omniglot-5w1s"),
        help="the runs to measure (default: all)",
    )
    parser.add_argument("--out", help="a folder for outside.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
