"""The Omniglot table as markdown: results, runs, configurations."""

from refmaml.cli import options
from refmaml.cli.omniglot import protocols
from refmaml.cli.omniglot.protocols import COLUMNS, PROTOCOLS, PUBLISHED, ROWS, cells_of, rows_of


def markdown(results):
    """The tables of all protocols that have a result.

    results  those of cells.evaluate_cell, in any order
    """
    if not results:
        return "Nothing was run yet.\n"
    known = {(r["protocol"], r["row"], r["column"]): r for r in results}
    parts = [
        section(protocol, known)
        for protocol in PROTOCOLS
        if any(key[0] == protocol for key in known)
    ]
    return "\n\n".join([*parts, runs(results), knobs({key[0] for key in known})]) + "\n"


def heading(protocol):
    """What a protocol is, at the start of a line; iMAML keeps its small letter."""
    text = PROTOCOLS[protocol]
    return text if text.startswith("iMAML") else text[0].upper() + text[1:]


def section(protocol, known):
    """One protocol: a row for each method, the published results below it."""
    columns = [c for c in COLUMNS if any(key[0] == protocol and key[2] == c for key in known)]
    lines = [
        f"### {heading(protocol)}",
        "",
        "| accuracy, % | " + " | ".join(COLUMNS[c] for c in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for row, title in rows_of(protocol).items():
        lines.append(
            f"| {title} | "
            + " | ".join(entry(known.get((protocol, row, c))) for c in columns)
            + " |"
        )
        lines.append(
            "| *published* | "
            + " | ".join(
                f"*{p.accuracy} ± {p.interval}*" for p in (PUBLISHED[row][c] for c in columns)
            )
            + " |"
        )
    return "\n".join(lines)


def entry(result):
    """ "98.21 ± 0.44 (96.9 one at a time)"; with the progress of an unfinished run."""
    if result is None:
        return "not run yet"
    together, alone = (result["evaluations"][way] for way in ("transductive", "one at a time"))
    figure = f"{percent(together)} ({percent(alone)} one at a time)"
    return f"**{figure}**" if result["finished"] else f"{figure}, *unfinished: {progress(result)}*"


def percent(evaluation):
    return f"{100 * evaluation['accuracy']:.2f} ± {100 * evaluation['interval']:.2f}"


def progress(result):
    """ "step 31,000 of 60,000"."""
    steps, minutes = result["configuration"]["steps"], result["configuration"]["minutes"]
    if steps:
        return f"step {result['steps']:,} of {steps:,}"
    return f"{result['seconds'] / 60:.0f} of {minutes:.0f} minutes"


def runs(results):
    """A table of the runs: steps, seed, time, tasks."""
    lines = [
        "### The runs",
        "",
        "| protocol | tasks | method | meta-steps | seed | training | held-out tasks "
        "| judged in | cores |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = {key: place for place, key in enumerate(cells_of(PROTOCOLS, COLUMNS, ROWS))}
    for r in sorted(results, key=lambda r: order[r["protocol"], r["column"], r["row"]]):
        lines.append(
            f"| {r['protocol']} | {COLUMNS[r['column']]} | {ROWS[r['row']]} | {r['steps']:,} "
            f"| {r['configuration']['seed']} | {r['seconds'] / 60:.0f} min | {r['tasks']:,} "
            f"| {r['judged_in'] / 60:.1f} min | {r['machine']['cores']} |"
        )
    return "\n".join(lines)


def knobs(chosen, column="5w1s"):
    """The options of each row, for the chosen protocols.

    Options that are the same for all rows stand in one line below.
    """
    lines = ["### The knobs"]
    for protocol in (p for p in PROTOCOLS if p in chosen):
        rows = rows_of(protocol)
        cells = [protocols.configuration(protocol, row, column) for row in rows]
        meant = [name for name in cells[0] if all(options.has_effect(name, cell) for cell in cells)]
        differ = [name for name in meant if any(cell[name] != cells[0][name] for cell in cells)]
        lines += [
            "",
            f"{heading(protocol)}, {COLUMNS[column]}:",
            "",
            "| knob | " + " | ".join(rows.values()) + " |",
            "|---|" + "---|" * len(rows),
        ]
        lines += [
            f"| {name} | " + " | ".join(value(cell[name]) for cell in cells) + " |"
            for name in differ
        ]
        alike = {
            name: cells[0][name]
            for name in meant
            if name not in differ and cells[0][name] is not None
        }
        lines += [
            "",
            "The same for all: "
            + ", ".join(f"{name} {value(setting)}" for name, setting in alike.items())
            + ".",
        ]
    return "\n".join(lines)


def value(setting):
    """A setting as text."""
    if isinstance(setting, list):
        return ", ".join(map(str, setting)) or "none"
    if setting is None or isinstance(setting, bool):
        return {None: "–", True: "yes", False: "no"}[setting]
    return f"{setting:g}" if isinstance(setting, float) else str(setting)
