"""A cell of the table: a folder with its configuration, its run, and its evaluation."""

import os
import time
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import NamedTuple

from refmaml.cli import options, problem, report, train
from refmaml.cli.omniglot import protocols
from refmaml.cli.run_folder import (
    CHECKPOINT,
    CONFIG,
    CURVE,
    PICTURE,
    RESULT,
    RunFolder,
    lock_folder,
)
from refmaml.errors import DataError, expect
from refmaml.training import Row, Rows, checkpoint, curve, files, plot
from refmaml.training.trainer import finished

# Options that may differ from the protocol: they change a run by rounding at most.
FREE = ("chunk", "kernels")
# How batch-norm sees query examples, {name: transductive}.
WAYS = {"transductive": True, "one at a time": False}
MAX_TASKS_UNFINISHED = 600  # held-out tasks for a run that is not finished
WRITTEN, NAMES = (
    "a cell's result",
    {
        "protocol",
        "row",
        "column",
        "finished",
        "steps",
        "seconds",
        "tasks",
        "judged_in",
        "evaluations",
        "configuration",
        "versions",
        "machine",
    },
)
MAX_ROWS = 500  # of a curve that is stored beside the table


class Cell(NamedTuple):
    """One method on one kind of task under one protocol.

    Its run is in the folder out/PROTOCOL/COLUMN/ROW.
    """

    protocol: str
    row: str
    column: str
    out: Path

    @property
    def folder(self):
        return self.out / self.protocol / self.column / self.row

    @property
    def title(self):
        return f"{self.protocol}, {protocols.COLUMNS[self.column]}, {protocols.ROWS[self.row]}"

    @property
    def configuration(self):
        return protocols.configuration(self.protocol, self.row, self.column)

    def progress(self):
        """The Progress of its checkpoint; None without one.

        Raises DataError; ArgumentError for a checkpoint of another configuration.
        """
        path = self.folder / CHECKPOINT
        if not os.path.exists(path):
            return None
        now, saved = checkpoint.load(path)
        for name in differing(saved, self):
            expect(
                name in options.SAVED["evaluation"],
                "--out",
                f"in {path} the protocol's {options.flag(name)} {self.configuration[name]}",
                options.reread(saved)[name],
            )
        return now

    def result(self):
        """The result that `evaluate_cell` wrote, or None. Raises DataError."""
        path = self.folder / RESULT
        return read_result(path) if os.path.exists(path) else None


def read_result(path):
    """The result that `evaluate_cell` wrote.

    Raises DataError for any other file, such as the result of `refmaml train --resume`
    in a cell's folder.
    """
    result = files.read_json(path, WRITTEN)
    if not isinstance(result, dict) or not set(result) >= NAMES:
        raise DataError(
            f"{path}: expected {WRITTEN}, got another (remove it to evaluate the cell again)"
        )
    return result


def differing(saved, cell):
    """The options whose values in a saved configuration differ from the cell's."""
    saved, wanted = options.reread(saved), cell.configuration
    return [name for name in wanted if name not in FREE and saved[name] != wanted[name]]


def is_finished(config, now):
    """Whether a run has reached its protocol's end."""
    return finished(now, config["steps"], config["minutes"])


def resume(cell, minutes, place, command, quiet=False):
    """Train the cell for at most `minutes` more, from its checkpoint; returns the
    Progress.

    place    data_root and download
    command  the command that resumes the work, printed when a signal stops it
    """
    config = cell.configuration
    method, net = problem.make_method(config), problem.make_net(config)
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train", **place))
    with ExitStack() as stack:
        path = lock_folder(files.make_folder(cell.folder), stack)
        before, start = cell.progress(), recipe.start(net.init(config["seed"], config["dtype"]))
        now = before or start
        problem.check_vectors(now, start, str(cell.folder / CHECKPOINT))
        folder = RunFolder(path, config, before and before.step)
        folder.save(now)
        limit = min(config["minutes"] or inf, now.seconds / 60 + minutes)
        train.train_then(
            folder,
            recipe,
            now,
            lambda meta: None,
            command,
            minutes=None if limit == inf else limit,
            quiet=quiet,
            title=cell.title,
        )
        return folder.latest


def evaluate_cell(cell, now, place):
    """Accuracy on held-out characters, for each of WAYS; written beside the run, and
    returned.

    An unfinished run is evaluated on at most MAX_TASKS_UNFINISHED tasks. A result that
    was computed at this step with this configuration is not computed again.
    """
    config, known = cell.configuration, cell.result()
    end = is_finished(config, now)
    if not end:
        config |= {"eval_tasks": min(config["eval_tasks"], MAX_TASKS_UNFINISHED)}
    if (
        known
        and known["steps"] == now.step
        and known["tasks"] == config["eval_tasks"]
        and not differing(known["configuration"], cell)
    ):
        return known
    started = time.perf_counter()
    method, net = problem.make_method(config), problem.make_net(config)
    evaluator = problem.make_evaluators(config, net, method, len(now.meta), WAYS.values(), **place)
    evaluations = dict(zip(WAYS, evaluator(now.meta), strict=True))
    result = {
        "protocol": cell.protocol,
        "row": cell.row,
        "column": cell.column,
        "finished": end,
        "steps": now.step,
        "seconds": round(now.seconds, 1),
        "tasks": config["eval_tasks"],
        "judged_in": round(time.perf_counter() - started, 1),
        "evaluations": {
            way: {"accuracy": e.mean, "interval": e.interval} for way, e in evaluations.items()
        },
        "configuration": cell.configuration,
        **report.circumstances(),
    }
    files.write_json(cell.folder / RESULT, result)
    plot.write_png(cell.folder / PICTURE, now.rows, cell.title)
    return result


def publish(cell, now, result, table):
    """Write configuration, result and a thinned curve into the table's folder.

    Does nothing where the runs themselves are in that folder.
    """
    if table.resolve() == cell.out.resolve():
        return
    folder = files.make_folder(cell._replace(out=table).folder)
    files.write_json(folder / CONFIG, cell.configuration)
    files.write_json(folder / RESULT, result)
    curve.write_csv(folder / CURVE, thinned(now.rows))


def thinned(rows):
    """At most MAX_ROWS rows: means over equally many steps, with the last step and time
    of each.
    """
    width = max(1, -(-len(rows) // MAX_ROWS))
    parts = [rows[start : start + width] for start in range(0, len(rows), width)]
    means = [
        Row(*part.table.mean(axis=0))._replace(step=part[-1].step, seconds=part[-1].seconds)
        for part in parts
    ]
    return Rows(means)
