"""conformance.json as tables of correct digits: libraries times methods, and rules."""

from math import inf, log10

METHODS = ("MAML", "first-order MAML", "ANIL", "Meta-SGD", "Reptile", "iMAML")


def digits(errors):
    """Correct digits of the worst parameter on the worst probe.

    floor(-log10 of its relative error)
    """
    worst = max(errors.values(), default=inf)
    return 16 if worst == 0 else max(0, int(-log10(worst))) if worst < 1 else 0


def cell(result):
    """The digits "15 / 6" in float64 / float32; the error if wrong; - if absent."""
    if result is None or result["verdict"] == "absent":
        return "-"
    if result["verdict"] == "failed":
        return "failed"
    errors = result["errors"]
    if result["verdict"] == "right":
        return " / ".join(
            str(digits(errors[precision]))
            for precision in ("float64", "float32")
            if precision in errors
        )
    worst = max(max(by_probe.values()) for by_probe in errors.values())
    return f"**{result['verdict']}**, {size(worst)}"


def size(error):
    """A relative error in words."""
    if error < 0.01:
        return f"{error:.1e} off"
    return f"{100 * error:.0f} % off" if error < 10 else f"{error:.0f} times off"


def rows(record):
    """[[library, a cell for each method], ...]; variants have their own rows."""
    out = []
    for library in record["libraries"]:
        version = next(iter(library["versions"].values()), "?")
        own = {name: result for name, result in library["methods"].items() if " (" not in name}
        out.append([f"{library['name']} {version}", *(cell(own.get(method)) for method in METHODS)])
        for name, result in library["methods"].items():
            if " (" in name:
                method, _, what = name.partition(" (")
                out.append(
                    [
                        f"{library['name']}, {what.rstrip(')')}",
                        *(cell(result) if m == method else "" for m in METHODS),
                    ]
                )
    return out


def lines(record):
    """The table as lines of markdown."""
    return [
        f"| library | {' | '.join(METHODS)} |",
        "|---" * (len(METHODS) + 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows(record)),
    ]


def rule_lines(record):
    """The table of update rules as lines of markdown: rules times libraries."""
    columns = record["rules"]
    rules = list(dict.fromkeys(rule for column in columns for rule in column["rules"]))
    rows = ([f"`{r}`", *(cell(column["rules"].get(r)) for column in columns)] for r in rules)
    return [
        f"| MAML with this rule inside | {' | '.join(map(titled, columns))} |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def titled(library):
    """ "TorchOpt 0.7.3, use_accelerated_op": a library's name with its version."""
    own, comma, variant = library["name"].partition(", ")
    return f"{own} {next(iter(library['versions'].values()), '?')}{comma}{variant}"


def remarks(record):
    """A line for each wrong verdict, each absent method and each absent library."""
    out = []
    for library in record["libraries"] + record["rules"]:
        for name, result in (library.get("methods") or library.get("rules", {})).items():
            if result["verdict"] != "right":
                out.append(
                    f"- {library['name']}, {name}: {result['verdict']}: {result['diagnosis']}"
                )
        if "failed" in library:
            out.append(f"- {library['name']} ended early: {library['failed']}")
    return out + [f"- {name}: {reason}" for name, reason in record["absent"].items()]


def origins(record):
    """A line for each run: date, what it measured, versions, machine and command."""
    out = []
    for number, run in enumerate(record["runs"]):
        parts = [r for r in record["libraries"] + record["rules"] if r["run"] == number]
        versions = {k: v for part in parts for k, v in part["versions"].items()} | run["versions"]
        used = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        names = "; ".join(part["part"] for part in parts)
        out.append(
            f"- {run['date']}: {names}. Versions: {used}. {run['machine']['processor']}; "
            f"`{run['command']}`, {run['seconds']:.0f} s."
        )
    return out


def markdown(record):
    """The text of conformance.md."""
    text = ["# Libraries, checked by the doctor", ""]
    text += [
        "Digits that are right in float64 / float32, "
        "the worst parameter on the worst of four probes.",
        "",
    ]
    if record["libraries"]:
        text += [*lines(record), ""]
    if record["rules"]:
        text += ["Update rules inside MAML, each declared to the doctor by `rule=`:", ""]
        text += [*rule_lines(record), ""]
    text += ["What the doctor says of what is not right:", "", *remarks(record), ""]
    return "\n".join([*text, "Measured:", "", *origins(record), ""])
