"""A Report as text, markdown, JSON and JUnit XML."""

import json
from math import isfinite
from xml.sax.saxutils import escape, quoteattr

from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG

SCHEMA = 1
MOST_ROWS = 12  # of a table of parameters in a terminal
MARKS = {RIGHT: "✅", WRONG: "❌", INCONCLUSIVE: "❔"}


def headline(report):
    """RIGHT, WRONG or INCONCLUSIVE, and the diagnosis."""
    return f"{report.verdict.upper()}: {report.diagnosis}"


def figure(value, form=".1e"):
    """A number, or - where it is not finite."""
    return format(value, form) if isfinite(value) else "-"


def worst_result(report):
    """The worst CaseResult that is not right, whose parameters are shown, or None."""
    bad = [r for r in report.results if r.verdict != RIGHT]

    def badness(result):
        return result.verdict == WRONG, result.precision == "float64", result.misfit

    return max(bad, key=badness, default=None)


# ---- text ----------------------------------------------------------------------------


def text(report):
    """The report for a terminal."""
    lines = [headline(report)]
    lines += [f"  fix: {report.fix}"] if report.fix else []
    lines += [f"  cannot be distinguished from: {tie}" for tie in report.ties]
    lines += [f"  where: {finding}" for finding in report.findings]
    lines += ["", *case_lines(report.results)]
    worst = worst_result(report)
    if worst is not None:
        title = f"  {worst.case}, {worst.precision}, parameter by parameter:"
        lines += ["", title, *parameter_lines(worst)]
    lines += ["", *(f"  note: {remark}" for remark in report.remarks)] if report.remarks else []
    return "\n".join([*lines, "", f"  again: {report.about.get('again', '')}"])


def case_lines(results):
    """A line for each case and precision."""
    lines = [
        f"  {'case':<12} {'precision':<9} {'error':>8} {'allowed':>8} {'noise':>8} {'kink':>8}"
    ]
    for r in results:
        numbers = (r.worst.error, r.worst.tolerance, r.noise, r.margin)
        columns = " ".join(f"{figure(number):>8}" for number in numbers)
        remark = f"  {r.remark}" if r.remark else ""
        lines.append(f"  {r.case:<12} {r.precision:<9} {columns}  {r.verdict}{remark}")
    return lines


def parameter_lines(result):
    """A line for each named array; of many, the MOST_ROWS that are worst."""
    head = f"  {'parameter':<20} {'error':>8} {'allowed':>8} {'scale':>9} {'cosine':>9}"
    lines = [f"{head}   worst entry, got, expected"]
    rows = result.rows
    if len(rows) > MOST_ROWS:
        rows = sorted(rows, key=lambda r: -r.error / r.tolerance)[:MOST_ROWS]
    for r in rows:
        scale, cosine = figure(r.scale, "9.5f"), figure(r.cosine, "9.6f")
        columns = f"{r.error:8.1e} {r.tolerance:8.1e} {scale:>9} {cosine:>9}"
        entry = f"{list(r.worst)} {r.got:.6g} {r.expected:.6g}"
        lines.append(f"  {r.name:<20} {columns}   {entry}")
    left = len(result.rows) - len(rows)
    return lines + ([f"  and {left} more"] if left else [])


# ---- markdown ------------------------------------------------------------------------


def markdown(report):
    """A markdown page."""
    lines = [f"### {MARKS[report.verdict]} {headline(report)}", ""]
    lines += [f"- fix: {report.fix}"] if report.fix else []
    lines += [f"- cannot be distinguished from: {tie}" for tie in report.ties]
    lines += [f"- where: {finding}" for finding in report.findings]
    lines += [f"- note: {remark}" for remark in report.remarks]
    lines += ["", *case_table(report.results)]
    worst = worst_result(report)
    if worst is not None:
        lines += ["", f"{worst.case}, {worst.precision}:", "", *parameter_table(worst.rows)]
    return "\n".join([*lines, "", f"`{report.about.get('again', '')}`", ""])


def case_table(results):
    """A markdown table with a row for each case and precision."""
    rows = []
    for r in results:
        numbers = (r.worst.error, r.worst.tolerance, r.noise, r.margin)
        verdict = f"{r.verdict}{': ' + r.remark if r.remark else ''}"
        rows.append((r.case, r.precision, *map(figure, numbers), verdict))
    return table(("case", "precision", "error", "allowed", "noise", "nearest kink", ""), rows)


def parameter_table(rows):
    """A markdown table with a row for each named array."""
    head = ("parameter", "error", "allowed", "scale", "cosine", "worst entry", "got", "expected")
    body = [
        (
            r.name,
            f"{r.error:.1e}",
            f"{r.tolerance:.1e}",
            figure(r.scale, ".5f"),
            figure(r.cosine, ".6f"),
            list(r.worst),
            f"{r.got:.6g}",
            f"{r.expected:.6g}",
        )
        for r in rows
    ]
    return table(head, body)


def table(head, rows):
    """The lines of a markdown table."""
    rule = "|" + "---|" * len(head)
    lines = [f"| {' | '.join(map(str, row))} |".replace("|  |", "| |") for row in (head, *rows)]
    return [lines[0], rule, *lines[1:]]


# ---- JSON ----------------------------------------------------------------------------


def as_json(report):
    """JSON text."""
    return json.dumps(record(report), indent=1)


def record(report):
    """The report as a dict of plain values; its keys are the schema and stay."""
    return {
        "schema": SCHEMA,
        "verdict": report.verdict,
        "ok": report.ok,
        "diagnosis": report.diagnosis,
        "fix": report.fix,
        "ties": list(report.ties),
        "findings": list(report.findings),
        "stages": [list(s) for s in report.stages],
        "remarks": list(report.remarks),
        "about": report.about,
        "sittings": [case_record(result) for result in report.results],
    }


def case_record(result):
    """One CaseResult as a dict of plain values."""
    return {
        "case": result.case,
        "precision": result.precision,
        "verdict": result.verdict,
        "remark": result.remark,
        "misfit": json_number(result.misfit),
        "noise": json_number(result.noise),
        "margin": json_number(result.margin),
        "parameters": [
            {k: json_number(v) for k, v in row._asdict().items()} for row in result.rows
        ],
    }


def json_number(value):
    """A value that JSON has: None for NaN and infinity."""
    return None if isinstance(value, float) and not isfinite(value) else value


# ---- JUnit XML -----------------------------------------------------------------------


def junit(report):
    """JUnit XML: a test case for each CaseResult; inconclusive is skipped."""
    message = quoteattr(headline(report)[:200])
    content = {
        RIGHT: "",
        WRONG: f"<failure message={message}>{escape(text(report))}</failure>",
        INCONCLUSIVE: f"<skipped message={message}/>",
    }
    cases = [junit_case(f"{r.case} {r.precision}", content[r.verdict]) for r in report.results]
    if report.verdict == WRONG and all(r.verdict != WRONG for r in report.results):
        failure = f"<failure message={quoteattr(report.diagnosis)}/>"
        cases.append(junit_case("repeated calls", failure))
    failures = sum("<failure" in c for c in cases)
    skipped = sum("<skipped" in c for c in cases)
    counts = f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="{skipped}"'
    head = f'<testsuite name="refmaml doctor" {counts}>'
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *cases, "</testsuite>", ""])


def junit_case(name, content):
    """One test case."""
    return f'  <testcase classname="refmaml.doctor" name={quoteattr(name)}>{content}</testcase>'
