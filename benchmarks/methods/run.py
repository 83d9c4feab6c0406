"""One table of methods on glyphs: the same net, tasks, evaluation and processor time.

    python benchmarks/methods/run.py --runs RUNS --minutes 20 --threads 2

trains each method of protocol.py for so many minutes on so many threads, evaluates it
on 600 held-out tasks, and writes methods.json, methods.md and methods.png beside this
file after each of them. A run that was stopped goes on from its checkpoint with the
same command. `--methods maml cnp` takes some; results of others in RUNS are kept.

The budget is counted in processor time, minutes times threads, because on a shared
machine the time on the wall is not a method's own. What waits for a lock or a second
thread uses less of it than the wall shows.
"""

import argparse
import json
import sys
import time
from contextlib import ExitStack
from math import inf
from pathlib import Path

import picture
import protocol
import table

from refmaml.cli import options, problem
from refmaml.cli.graceful_stop import stop_on_signal
from refmaml.cli.omniglot.cells import WAYS
from refmaml.cli.run_folder import CHECKPOINT, RESULT, RunFolder, lock_folder
from refmaml.environment import circumstances
from refmaml.errors import NonFiniteError
from refmaml.training import checkpoint, files, train

HERE = Path(__file__).parent
SPENT, SLICE, BETWEEN_SAVES = "spent.json", 10, 30.0  # steps; processor seconds


class Spent:
    """The processor seconds that a run has taken, on disk with the step they belong to.

    It is written before the checkpoint, with the entry of the checkpoint before. So a
    run that is killed between the two finds the number of the checkpoint that is there.
    """

    def __init__(self, path, step):
        self.path, self.step = path, step
        self.seconds = self.before = json.loads(path.read_text())[str(step)] if step else 0.0

    def write(self, step):
        entries = {str(self.step): self.before, str(step): round(self.seconds, 2)}
        files.write_json(self.path, entries)
        self.step, self.before = step, self.seconds


def train_method(folder, config, budget, threads, say):
    """Train until the budget of processor seconds is used; (Progress, seconds, why it
    ended early or "")."""
    net, method = problem.make_net(config, threads), problem.make_method(config)
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train"))
    with ExitStack() as stack:
        path = lock_folder(files.make_folder(folder), stack)
        stack.enter_context(stop_on_signal())
        now = resumed(path / CHECKPOINT, config)
        run = RunFolder(path, config, now and now.step)
        now = now or recipe.start(net.init(config["seed"], config["dtype"]))
        spent = Spent(path / SPENT, now.step)
        try:
            now = slices(recipe, now, config["steps"] or inf, budget, spent, run, say)
        except NonFiniteError as error:
            now = checkpoint.load(path / CHECKPOINT)[0]
            return now, spent.seconds, str(error)
        run.draw_curve()
        return now, spent.seconds, ""


def resumed(path, config):
    """The Progress of a checkpoint, or None; refuses that of other options."""
    if not path.exists():
        return None
    now, saved = checkpoint.load(path)
    saved = options.reread(saved)
    differing = [name for name in config if name != "minutes" and saved[name] != config[name]]
    if differing:
        raise SystemExit(f"{path}: expected the options of this run, got another "
                         f"{', '.join(differing)}: remove it, or take another --runs")  # fmt: skip
    return now


def slices(recipe, now, steps, budget, spent, run, say):
    """Some steps at a time, up to `steps` or the budget; saved every BETWEEN_SAVES."""
    saved = spent.seconds - BETWEEN_SAVES  # save at once
    while now.step < steps and spent.seconds < budget:
        started = time.process_time()
        now = train(recipe, now, steps=min(steps, now.step + SLICE))
        spent.seconds += time.process_time() - started
        done = now.step >= steps or spent.seconds >= budget
        if done or spent.seconds >= saved + BETWEEN_SAVES:
            saved = spent.seconds
            spent.write(now.step)
            run.save(now)
            say(now, spent.seconds)
    return now


def evaluated(config, now, threads):
    """{how the query examples are seen: {"accuracy", "interval"}} on held-out tasks."""
    net, method = problem.make_net(config, threads), problem.make_method(config)
    evaluator = problem.make_evaluators(config, net, method, len(now.meta), WAYS.values())
    found = zip(WAYS, evaluator(now.meta), strict=True)
    return {way: {"accuracy": e.mean, "interval": e.interval} for way, e in found}


def result_of(name, given, say):
    """Train and evaluate a method; its result, from disk where it is known."""
    folder, budget = given.runs / name, 60 * given.minutes * given.threads
    path = folder / RESULT
    if path.exists() and json.loads(path.read_text())["budget_minutes"] == given.minutes:
        return
    config = protocol.configuration(name, budget / 60, **given.changes)
    now, seconds, ended = train_method(folder, config, budget, given.threads, say)
    files.write_json(path, {
        "method": name,
        "budget_minutes": given.minutes,
        "threads": given.threads,
        "steps": now.step,
        "processor_minutes": round(seconds / 60, 4),
        "ended_early": ended,
        "parameters": len(now.meta),
        "held_out_tasks": config["eval_tasks"],
        "evaluations": evaluated(config, now, given.threads),
        "configuration": config,
        **circumstances(),
    })  # fmt: skip


def write_table(runs, out):
    """methods.json, methods.md and methods.png of all results in RUNS."""
    paths = [runs / name / RESULT for name in protocol.METHODS]
    results = [json.loads(path.read_text()) for path in paths if path.exists()]
    files.make_folder(out)
    files.write_json(out / "methods.json", {"schema": 1, "results": results})
    (out / "methods.md").write_text(table.markdown(results))
    picture.draw(out / "methods.png", results)


def parsed(argv):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--minutes", type=float, default=20.0,
                        help="of each method's training (default 20)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2, help="cores for each (default 2)")
    parser.add_argument("--methods", nargs="+", choices=protocol.METHODS, metavar="METHOD",
                        default=protocol.METHODS, help="some of them (default: all)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE, help="the folder of the table")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(argv)


def main(argv=None, **changes):
    given = parsed(argv)
    given.changes = changes
    for name in given.methods:

        def say(now, seconds, name=name):
            if not given.quiet:
                loss = now.rows[-1].loss
                print(f"{name}: step {now.step}, {seconds:.0f} s, loss {loss:.4g}", file=sys.stderr)

        result_of(name, given, say)
        write_table(given.runs, given.out)
    print((given.out / "methods.md").read_text())


if __name__ == "__main__":
    main()
