"""`refmaml reproduce omniglot`: published numbers, run again in one harness, and the table that comes of it."""

import re
import shlex
import time
from contextlib import contextmanager
from pathlib import Path

from refmaml.cli import options
from refmaml.errors import ArgumentError, NonFiniteError, RefmamlError, expect
from refmaml.log import say

TABLE = "table"  # .md, .json, .png
ABOUT = (
    "Trains the cells of the Omniglot table one after another, each from where it is, and judges them on held-out characters. What is "
    "not finished when the time is up says so in the table, and the same command goes on with it."
)


def add(subparsers):
    """Register the command."""
    from refmaml.cli.omniglot.protocols import COLUMNS, PROTOCOLS, ROWS

    p = subparsers.add_parser(
        "reproduce", help="run published results again, and write the table", description=ABOUT
    )
    p.add_argument("what", choices=("omniglot",), help="which results")
    p.add_argument(
        "--rows",
        nargs="+",
        choices=tuple(ROWS),
        default=tuple(ROWS),
        metavar="ROW",
        help=f"some of {', '.join(ROWS)}",
    )
    p.add_argument(
        "--columns",
        nargs="+",
        choices=tuple(COLUMNS),
        default=("5w1s",),
        metavar="COLUMN",
        help=f"some of {', '.join(COLUMNS)} (default 5w1s)",
    )
    p.add_argument(
        "--protocols",
        nargs="+",
        choices=tuple(PROTOCOLS),
        default=tuple(PROTOCOLS),
        metavar="PROTOCOL",
        help=f"some of {', '.join(PROTOCOLS)}",
    )
    p.add_argument(
        "--budget",
        metavar="TIME",
        help="time for training, as 2h, 90m, 1h30m or 20s; judging comes on top (default: no limit)",
    )
    p.add_argument("--table", metavar="PATH", help="where the table goes (default: --out)")
    p.add_argument(
        "--list", action="store_true", help="show how far each cell is, and train nothing"
    )
    p.add_argument("--quiet", action="store_true", help="no progress, only the table")
    options.add(p, ("out", "data_root", "download"))
    p.set_defaults(func=run)


def run(arguments):
    """Train, judge, and write the table after every cell. One cell's trouble is said and does not keep the others; then the status is 2."""
    from refmaml.cli import problem
    from refmaml.cli.graceful_stop import stopping
    from refmaml.cli.omniglot import cells

    given = options.typed(arguments)
    out = Path(given.get("out", "runs/omniglot"))
    chosen = [
        cells.Cell(p, r, c, out)
        for p in arguments.protocols
        for c in arguments.columns
        for r in arguments.rows
    ]
    left, troubles = float("inf") if arguments.budget is None else seconds(arguments.budget), []
    if arguments.list:
        return print("\n".join(standing(cell) for cell in chosen))
    where = {name: given[name] for name in ("data_root", "download") if name in given}
    expect("data_root" in where, "--data-root", "the folder that holds Omniglot", "nothing")
    problem.make_tasks(
        chosen[0].configuration, "train", **where
    )  # what no cell can do without is missing at once
    table = Path(arguments.table or out)
    for cell in chosen:
        with told(troubles, RefmamlError):
            now, started = cell.so_far(), time.monotonic()
            if left > 0 and not (now and cells.done(cell.configuration, now)):
                with told(troubles, NonFiniteError):  # what there was before it diverged is judged
                    cells.go_on(cell, left / 60, where, again(arguments, given), arguments.quiet)
                now, left = cell.so_far(), left - (time.monotonic() - started)
            if now and now.step:
                with stopping(f"to go on: {again(arguments, given)}"):
                    cells.publish(cell, now, cells.judge(cell, now, where), table)
                    write_table(table)
    print(
        (table / f"{TABLE}.md").read_text()
        if (table / f"{TABLE}.md").exists()
        else "Nothing was run yet."
    )
    return 2 if troubles else 0


@contextmanager
def told(troubles, kind):
    """A block whose errors of a kind are said, and put into `troubles`."""
    try:
        yield
    except kind as error:
        say(f"refmaml: {error}")
        troubles.append(error)


def again(arguments, given):
    """The command as it was typed, for who wants to go on."""
    several = [
        word
        for name in ("protocols", "columns", "rows")
        for word in (f"--{name}", *getattr(arguments, name))
    ]
    single = {
        **{options.flag(name): given[name] for name in ("out", "data_root") if name in given},
        **{
            f"--{name}": getattr(arguments, name)
            for name in ("table", "budget")
            if getattr(arguments, name)
        },
    }
    alone = [
        f"--{name}"
        for name, typed in (("download", "download" in given), ("quiet", arguments.quiet))
        if typed
    ]
    return shlex.join(
        [
            "refmaml",
            "reproduce",
            "omniglot",
            *several,
            *(word for pair in single.items() for word in pair),
            *alone,
        ]
    )


def standing(cell):
    """One line: how far a cell is, and what it was worth when it was last judged."""
    from refmaml.cli.omniglot import cells, table

    now, result, config = cell.so_far(), cell.result(), cell.configuration
    end = f"{config['steps']:,} steps" if config["steps"] else f"{config['minutes']:.0f} minutes"
    far = (
        "not begun"
        if now is None
        else "finished"
        if cells.done(config, now)
        else f"step {now.step:,}, {now.seconds / 60:.0f} minutes"
    )
    return f"{cell.title} ({end}): {far}" + (
        f"; at step {result['steps']:,}: {table.entry(result)}" if result else ""
    )


def write_table(folder):
    """Markdown, JSON and picture of all results in the folder of the table."""
    from refmaml.cli.omniglot import picture, protocols, table
    from refmaml.cli.omniglot.cells import read_result
    from refmaml.cli.run_folder import RESULT
    from refmaml.training import files

    paths = [
        folder / p / c / r / RESULT
        for p in protocols.PROTOCOLS
        for c in protocols.COLUMNS
        for r in protocols.ROWS
    ]
    results = [read_result(path) for path in paths if path.exists()]
    published = {
        row: {c: p._asdict() for c, p in columns.items()}
        for row, columns in protocols.PUBLISHED.items()
    }
    files.write_json(
        folder / f"{TABLE}.json", {"schema": 1, "published": published, "results": results}
    )
    with files.durable_write(folder / f"{TABLE}.md") as file:
        file.write(table.markdown(results).encode())
    picture.write_picture(folder / f"{TABLE}.png", results)


def seconds(text):
    """ "1h30m" -> 5400.0. Raises ArgumentError."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text)
    if not text or not match:
        raise ArgumentError(
            f"--budget: expected a time such as 2h, 90m, 1h30m or 20s, got {text!r}"
        )
    return sum(
        float(part) * unit for part, unit in zip(match.groups(), (3600, 60, 1), strict=True) if part
    )
