"""conformance.json as a table of correct digits: libraries times methods."""

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
    size = f"{100 * worst:.0f} % off" if worst < 10 else f"{worst:.0f} times off"
    return f"**{result['verdict']}**, {size}"


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


def remarks(record):
    """A line for each wrong verdict, each absent method and each absent library."""
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
    """The text of conformance.md."""
    versions = {
        k: v for library in record["libraries"] for k, v in library["versions"].items()
    } | record["versions"]
    head = [
        "# Libraries, checked by the doctor",
        "",
        "Digits that are right in float64 / float32, "
        "the worst parameter on the worst of four probes.",
        "",
    ]
    used = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    foot = [
        "",
        f"Versions: {used}. "
        f"{record['machine']['processor']}; `{record['command']}`, {record['seconds']:.0f} s.",
    ]
    return "\n".join([*head, *lines(record), "", *remarks(record), *foot, ""])
