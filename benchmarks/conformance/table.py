"""conformance.json as a table: a row for each library, a column for each method, digits
that are right in float64 and float32.
"""

from math import inf, log10

METHODS = ("MAML", "first-order MAML", "ANIL", "Meta-SGD", "Reptile", "iMAML")


def digits(errors):
    """How many digits the worst parameter on the worst probe has right: floor(-log10 of
    its relative error).
    """
    worst = max(errors.values(), default=inf)
    return 16 if worst == 0 else max(0, int(-log10(worst))) if worst < 1 else 0


def cell(result):
    """ "15 / 6" where float64 and float32 are right; how far off a wrong one is; -
    where there is none.
    """
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
    size = f"{100 * worst:.0f} % off" if worst < 10 else f"{worst:.0f} times off"
    return f"**{result['verdict']}**, {size}"


def rows(record):
    """[[library with its version, a cell for each method], ...]; variants of a method
    are rows of their own.
    """
    out = []
    for library in record["libraries"]:
        version = next(iter(library["versions"].values()), "?")
        plain = {name: result for name, result in library["methods"].items() if " (" not in name}
        out.append(
            [f"{library['name']} {version}", *(cell(plain.get(method)) for method in METHODS)]
        )
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


def remarks(record):
    """A line for each verdict that is not "right", each method a library does not have,
    each library that is not there.
    """
    out = []
    for library in record["libraries"]:
        for name, result in library["methods"].items():
            if result["verdict"] != "right":
                out.append(
                    f"- {library['name']}, {name}: {result['verdict']}: {result['diagnosis']}"
                )
        if "failed" in library:
            out.append(f"- {library['name']} ended early: {library['failed']}")
    return out + [f"- {name}: {reason}" for name, reason in record["absent"].items()]


def markdown(record):
    """conformance.md: the table, and what is behind its cells."""
    versions = {
        k: v for library in record["libraries"] for k, v in library["versions"].items()
    } | record["versions"]
    head = [
        "# Libraries before the doctor",
        "",
        "Digits that are right in float64 / float32, the worst parameter on the worst of four "
        "probes.",
        "",
    ]
    used = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    foot = [
        "",
        f"Versions: {used}. "
        f"{record['machine']['processor']}; `{record['command']}`, {record['seconds']:.0f} s.",
    ]
    return "\n".join([*head, *lines(record), "", *remarks(record), *foot, ""])
