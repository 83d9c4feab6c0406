"""A CheckReport as text, markdown, JSON and JUnit XML, in the form of the doctor's."""

import json
from math import isfinite
from xml.sax.saxutils import escape, quoteattr

from refmaml.doctor.renderers import MARKS, MOST_ROWS, figure, headline, json_number, table
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG

SCHEMA = 1


def factor_text(value):
    """A factor, or - where there is none."""
    return f"{value:.6g}" if isfinite(value) else "-"


def shown(rows):
    """The rows of a table in a terminal: of many, the MOST_ROWS that are worst."""
    if len(rows) <= MOST_ROWS:
        return rows
    order = sorted(rows, key=lambda r: -r.error / r.allowed if r.allowed else -r.error)
    return [row for row in rows if row in order[:MOST_ROWS]]


def text(report):
    """The report for a terminal."""
    lines = [headline(report)]
    lines += [f"  fix: {report.fix}"] if report.fix else []
    lines += [f"  where: {finding}" for finding in report.findings]
    lines += ["", *row_lines(report.rows)] if report.rows else []
    lines += ["", *(f"  note: {remark}" for remark in report.remarks)] if report.remarks else []
    again = report.about.get("again")
    return "\n".join([*lines, "", f"  again: {again}"] if again else lines)


def row_lines(rows):
    """A line for each row."""
    chosen = shown(rows)
    width = max(12, *(len(row.name) for row in chosen))
    lines = [f"  {'what':<{width}} {'error':>8} {'allowed':>8} {'factor':>10}"]
    for r in chosen:
        numbers = f"{figure(r.error):>8} {figure(r.allowed):>8} {factor_text(r.factor):>10}"
        remark = f": {r.remark}" if r.remark else ""
        lines.append(f"  {r.name:<{width}} {numbers}  {r.verdict}{remark}")
    left = len(rows) - len(chosen)
    return lines + ([f"  and {left} more"] if left else [])


def markdown(report):
    """A markdown page."""
    lines = [f"### {MARKS[report.verdict]} {headline(report)}", ""]
    lines += [f"- fix: {report.fix}"] if report.fix else []
    lines += [f"- where: {finding}" for finding in report.findings]
    lines += [f"- note: {remark}" for remark in report.remarks]
    body = [
        (
            r.name,
            figure(r.error),
            figure(r.allowed),
            factor_text(r.factor),
            f"{r.verdict}{': ' + r.remark if r.remark else ''}",
        )
        for r in report.rows
    ]
    lines += ["", *table(("what", "error", "allowed", "factor", ""), body)] if body else []
    again = report.about.get("again")
    return "\n".join([*lines, *(["", f"`{again}`"] if again else []), ""])


def as_json(report):
    """JSON text; the keys are the schema and stay."""
    rows = [{k: json_number(v) for k, v in row._asdict().items()} for row in report.rows]
    record = {
        "schema": SCHEMA,
        "check": report.check,
        "verdict": report.verdict,
        "ok": report.ok,
        "diagnosis": report.diagnosis,
        "fix": report.fix,
        "findings": list(report.findings),
        "rows": rows,
        "remarks": list(report.remarks),
        "about": report.about,
    }
    return json.dumps(record, indent=1)


def junit(report):
    """JUnit XML: a test case for each row, and one for the whole check."""
    message = quoteattr(headline(report)[:200])
    whole = {
        RIGHT: "",
        WRONG: f"<failure message={message}>{escape(text(report))}</failure>",
        INCONCLUSIVE: f"<skipped message={message}/>",
    }
    of_row = {
        RIGHT: "",
        WRONG: f"<failure message={message}/>",
        INCONCLUSIVE: f"<skipped message={message}/>",
    }
    cases = [(report.check, whole[report.verdict])]
    cases += [(row.name, of_row[row.verdict]) for row in report.rows]
    failures = sum(content.startswith("<failure") for _, content in cases)
    skipped = sum(content.startswith("<skipped") for _, content in cases)
    counts = f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="{skipped}"'
    name = f"refmaml.check.{report.check}"
    body = [
        f"  <testcase classname={quoteattr(name)} name={quoteattr(case)}>{content}</testcase>"
        for case, content in cases
    ]
    head = f'<testsuite name="refmaml check {report.check}" {counts}>'
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *body, "</testsuite>", ""])
