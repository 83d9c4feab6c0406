"""A cell of the table: a folder with its configuration, its run as far as it has come, and what it was judged to be worth."""

import os
import time
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import NamedTuple

from refmaml.cli import options, problem, report, train
from refmaml.cli.omniglot import protocols
from refmaml.cli.run_folder import CHECKPOINT, CONFIG, CURVE, PICTURE, RESULT, RunFolder, claimed
from refmaml.errors import DataError, expect
from refmaml.training import Row, Rows, checkpoint, curve, files
from refmaml.training.trainer import finished

# What a run may have been started with otherwise: it changes no bit of it, or what rounding changes.
FREE = ("chunk", "kernels")
# How query examples are seen, {name: transductive}.
WAYS = {"transductive": True, "one at a time": False}
MOST_UNFINISHED = 600
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
THINNED = 500  # rows of a curve that is kept beside the table


class Cell(NamedTuple):
    """One method on one kind of task under one protocol; its run lives in out/PROTOCOL/COLUMN/ROW."""

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

    def so_far(self):
        """The Progress of its checkpoint, or None where there is none yet. Raises DataError, ArgumentError for another configuration."""
        path = self.folder / CHECKPOINT
        if not os.path.exists(path):
            return None
        now, saved = checkpoint.load(path)
        other = [name for name in differing(saved, self) if name not in options.SAVED["evaluation"]]
        expect(
            not other,
            "--out",
            f"in {path} the protocol's {other and options.flag(other[0])} {other and self.configuration[other[0]]}",
            other and options.reread(saved)[other[0]],
        )
        return now

    def result(self):
        """What `judge` wrote, or None. Raises DataError."""
        path = self.folder / RESULT
        return read_result(path) if os.path.exists(path) else None


def read_result(path):
    """What `judge` wrote. Raises DataError for anything else, such as the result of `refmaml train --resume` in a cell's folder."""
    result = files.read_json(path, WRITTEN)
    if not isinstance(result, dict) or not set(result) >= NAMES:
        raise DataError(
            f"{path}: expected {WRITTEN}, got another (remove it, and the cell is judged again)"
        )
    return result


def differing(saved, cell):
    """The knobs whose values in a saved configuration are not the cell's of today."""
    saved, wanted = options.reread(saved), cell.configuration
    return [name for name in wanted if name not in FREE and saved[name] != wanted[name]]


def done(config, now):
    """Whether a run has come to its protocol's end."""
    return finished(now, config["steps"], config["minutes"])


def go_on(cell, minutes, where, again, quiet=False):
    """Train the cell for at most so many minutes more, from where it is; returns the Progress. `again` is the command that goes on."""
    config = cell.configuration
    method, net = problem.make_method(config), problem.make_net(config)
    recipe = problem.make_recipe(config, net, method, problem.make_tasks(config, "train", **where))
    with ExitStack() as stack:
        folder = claimed(files.make_folder(cell.folder), stack)
        before, start = cell.so_far(), recipe.start(net.init(config["seed"], config["dtype"]))
        now = before or start
        problem.check_fits(now, start, str(cell.folder / CHECKPOINT))
        kept = RunFolder(folder, config, before and before.step)
        kept.save(now)
        limit = min(config["minutes"] or inf, now.seconds / 60 + minutes)
        train.trained(
            kept,
            recipe,
            now,
            lambda meta: None,
            again,
            minutes=None if limit == inf else limit,
            quiet=quiet,
            title=cell.title,
        )
        return kept.seen


def judge(cell, now, where):
    """Accuracy on held-out characters, query examples seen together and one at a time; written beside the run, and returned.

    An unfinished run is judged on MOST_UNFINISHED tasks at most; what was judged so at this very step already is not judged again.
    """
    config, known = cell.configuration, cell.result()
    end = done(config, now)
    config |= {
        "eval_tasks": config["eval_tasks"] if end else min(config["eval_tasks"], MOST_UNFINISHED)
    }
    if (
        known
        and known["steps"] == now.step
        and known["tasks"] == config["eval_tasks"]
        and not differing(known["configuration"], cell)
    ):
        return known
    started, method, net = (
        time.perf_counter(),
        problem.make_method(config),
        problem.make_net(config),
    )
    judged = problem.make_judges(config, net, method, len(now.meta), WAYS.values(), **where)(
        now.meta
    )
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
            way: {"accuracy": e.mean, "interval": e.interval}
            for way, e in zip(WAYS, judged, strict=True)
        },
        "configuration": cell.configuration,
        **report.circumstances(),
    }
    files.write_json(cell.folder / RESULT, result)
    curve.write_png(cell.folder / PICTURE, now.rows, cell.title)
    return result


def publish(cell, now, result, table):
    """The cell's configuration, its result and a thinned curve, in the folder of the table, unless that is where the runs are."""
    if table.resolve() == cell.out.resolve():
        return
    folder = files.make_folder(cell._replace(out=table).folder)
    files.write_json(folder / CONFIG, cell.configuration)
    files.write_json(folder / RESULT, result)
    curve.write_csv(folder / CURVE, thinned(now.rows))


def thinned(rows):
    """At most THINNED rows: means over as many steps as that takes, at the last step and second of them."""
    width = max(1, -(-len(rows) // THINNED))
    parts = [rows[start : start + width] for start in range(0, len(rows), width)]
    means = [
        Row(*part.table.mean(axis=0))._replace(step=part[-1].step, seconds=part[-1].seconds)
        for part in parts
    ]
    return Rows(means)
