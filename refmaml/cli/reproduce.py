"""`refmaml reproduce omniglot`: runs published results again and writes their table."""

import re
import shlex
import time
from contextlib import contextmanager
from pathlib import Path

from refmaml.cli import options
from refmaml.errors import ArgumentError, NonFiniteError, RefmamlError, expect
from refmaml.log import log

TABLE = "table"  # .md, .json, .png
DESCRIPTION = (
    "Trains the cells of the Omniglot table one after another, each from its last checkpoint, "
    "and evaluates them on held-out characters. The table marks a cell that is not finished "
    "when the time is up, and the same command resumes it."
)


def add(subparsers):
    """Register the command."""
    from refmaml.cli.omniglot.protocols import COLUMNS, PROTOCOLS, ROWS

    p = subparsers.add_parser(
        "reproduce",
        help="run published results again, and write the table",
        description=DESCRIPTION,
    )
    p.add_argument("what", choices=("omniglot",), help="which results")
    add_choice(p, "rows", ROWS, tuple(ROWS))
    add_choice(p, "columns", COLUMNS, ("5w1s",), " (default 5w1s)")
    add_choice(p, "protocols", PROTOCOLS, tuple(PROTOCOLS))
    p.add_argument(
        "--budget",
        metavar="TIME",
        help="time for training, as 2h, 90m, 1h30m or 20s, without evaluation (default: no limit)",
    )
    p.add_argument("--table", metavar="PATH", help="the folder of the table (default: --out)")
    p.add_argument(
        "--list", action="store_true", help="print the state of each cell, and train nothing"
    )
    p.add_argument("--quiet", action="store_true", help="no progress, only the table")
    options.add(p, ("out", "data_root", "download"))
    p.set_defaults(func=run)


def add_choice(parser, name, values, default, note=""):
    """Add an option that takes some of `values`."""
    parser.add_argument(
        f"--{name}",
        nargs="+",
        choices=tuple(values),
        default=default,
        metavar=name.removesuffix("s").upper(),
        help=f"some of {', '.join(values)}{note}",
    )


def run(arguments):
    """Train, evaluate, and write the table after every cell.

    An error in one cell is printed, and the other cells go on; the status is then 2.
    """
    from refmaml.cli import problem
    from refmaml.cli.omniglot import cells
    from refmaml.cli.omniglot.protocols import cells_of

    given = options.typed(arguments)
    out = Path(given.get("out", "runs/omniglot"))
    chosen = [
        cells.Cell(p, r, c, out)
        for p, c, r in cells_of(arguments.protocols, arguments.columns, arguments.rows)
    ]
    expect(chosen, "--rows", "some that --protocols have", " ".join(arguments.rows))
    left = float("inf") if arguments.budget is None else seconds(arguments.budget)
    if arguments.list:
        return print("\n".join(state_line(cell) for cell in chosen))
    place = {name: given[name] for name in ("data_root", "download") if name in given}
    expect("data_root" in place, "--data-root", "the folder that holds Omniglot", "nothing")
    # Data that every cell needs and that is missing is an error at once.
    problem.make_tasks(chosen[0].configuration, "train", **place)
    errors, table, command = [], Path(arguments.table or out), resume_command(arguments, given)
    for cell in chosen:
        with collected(errors, RefmamlError):
            left = run_cell(cell, left, place, table, command, arguments.quiet, errors)
    written = table / f"{TABLE}.md"
    print(written.read_text() if written.exists() else "Nothing was run yet.")
    return 2 if errors else 0


def run_cell(cell, left, place, table, command, quiet, errors):
    """Train one cell for at most `left` seconds, evaluate it, write the table.

    Returns the seconds that are left. A cell that diverges is evaluated at its last
    checkpoint; the error goes into `errors`.
    """
    from refmaml.cli.graceful_stop import stop_on_signal
    from refmaml.cli.omniglot import cells

    now, started = cell.progress(), time.monotonic()
    if left > 0 and not (now and cells.is_finished(cell.configuration, now)):
        with collected(errors, NonFiniteError):
            cells.resume(cell, left / 60, place, command, quiet)
        now, left = cell.progress(), left - (time.monotonic() - started)
    if now and now.step:
        with stop_on_signal(f"to go on: {command}"):
            cells.publish(cell, now, cells.evaluate_cell(cell, now, place), table)
            write_table(table)
    return left


@contextmanager
def collected(errors, kind):
    """A block whose errors of a kind are printed and appended to `errors`."""
    try:
        yield
    except kind as error:
        log(f"refmaml: {error}")
        errors.append(error)


def resume_command(arguments, given):
    """The command as it was typed, which resumes the work."""
    words = ["refmaml", "reproduce", "omniglot"]
    for name in ("protocols", "columns", "rows"):
        words += [f"--{name}", *getattr(arguments, name)]
    for name in ("out", "data_root"):
        words += [options.flag(name), given[name]] if name in given else []
    for name in ("table", "budget"):
        value = getattr(arguments, name)
        words += [f"--{name}", value] if value else []
    words += ["--download"] if "download" in given else []
    words += ["--quiet"] if arguments.quiet else []
    return shlex.join(words)


def state_line(cell):
    """One line: the progress of a cell, and its last result."""
    from refmaml.cli.omniglot import cells, table

    now, result, config = cell.progress(), cell.result(), cell.configuration
    end = f"{config['steps']:,} steps" if config["steps"] else f"{config['minutes']:.0f} minutes"
    if now is None:
        state = "not begun"
    elif cells.is_finished(config, now):
        state = "finished"
    else:
        state = f"step {now.step:,}, {now.seconds / 60:.0f} minutes"
    measured = f"; at step {result['steps']:,}: {table.entry(result)}" if result else ""
    return f"{cell.title} ({end}): {state}{measured}"


def write_table(folder):
    """Markdown, JSON and picture of all results in the folder of the table."""
    from refmaml.cli.omniglot import picture, protocols, table
    from refmaml.cli.omniglot.cells import read_result
    from refmaml.cli.run_folder import RESULT
    from refmaml.training import files

    paths = [
        folder / p / c / r / RESULT
        for p, c, r in protocols.cells_of(protocols.PROTOCOLS, protocols.COLUMNS, protocols.ROWS)
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
