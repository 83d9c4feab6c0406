"""A Report as text, markdown, JSON and JUnit."""

import json
from math import isfinite
from xml.sax.saxutils import escape, quoteattr

from refmaml.doctor.report import INCONCLUSIVE, RIGHT, WRONG

SCHEMA = 1
SHOWN = 12  # rows of a table of parameters


def headline(report):
    """RIGHT, WRONG or INCONCLUSIVE, and the diagnosis."""
    return f"{report.verdict.upper()}: {report.diagnosis}"


def figure(value, form=".1e"):
    """A number, or - where there is none."""
    return format(value, form) if value == value and isfinite(value) else "-"


def text(report):
    """The report as people read it in a terminal."""
    lines = [headline(report)]
    lines += [f"  fix: {report.fix}"] if report.fix else []
    lines += [f"  cannot be told from: {tie}" for tie in report.ties]
    lines += [f"  where: {finding}" for finding in report.findings]
    lines += ["", *sitting_lines(report.sittings)]
    shown = worst_sitting(report)
    if shown is not None:
        lines += [
            "",
            f"  {shown.case}, {shown.precision}, parameter by parameter:",
            *row_lines(shown),
        ]
    lines += ["", *(f"  note: {remark}" for remark in report.remarks)] if report.remarks else []
    return "\n".join([*lines, "", f"  again: {report.about.get('again', '')}"])


def sitting_lines(sittings):
    """A line for each probe and precision."""
    head = f"  {'probe':<12} {'precision':<9} {'error':>8} {'allowed':>8} {'noise':>8} {'kink':>8}"
    lines = [head]
    for s in sittings:
        row = s.worst
        remark = f"  {s.remark}" if s.remark else ""
        lines.append(
            f"  {s.case:<12} {s.precision:<9} {figure(row.error):>8} {figure(row.tolerance):>8} {figure(s.noise):>8} "
            f"{figure(s.margin):>8}  {s.verdict}{remark}"
        )
    return lines


def row_lines(sitting):
    """A line for each named array, the worst first where there are many."""
    lines = [
        f"  {'parameter':<20} {'error':>8} {'allowed':>8} {'scale':>9} {'cosine':>9}   worst entry, got, expected"
    ]
    rows = (
        sorted(sitting.rows, key=lambda r: -r.error / r.tolerance)[:SHOWN]
        if len(sitting.rows) > SHOWN
        else sitting.rows
    )
    for r in rows:
        lines.append(
            f"  {r.name:<20} {r.error:8.1e} {r.tolerance:8.1e} {figure(r.scale, '9.5f'):>9} {figure(r.cosine, '9.6f'):>9}   "
            f"{list(r.worst)} {r.got:.6g} {r.expected:.6g}"
        )
    left = len(sitting.rows) - len(rows)
    return lines + ([f"  and {left} more"] if left else [])


def worst_sitting(report):
    """The sitting whose table is worth showing: the worst that is not right."""
    bad = [s for s in report.sittings if s.verdict != RIGHT]
    return (
        max(bad, key=lambda s: (s.verdict == WRONG, s.precision == "float64", s.misfit))
        if bad
        else None
    )


def markdown(report):
    """A markdown page."""
    mark = {RIGHT: "✅", WRONG: "❌", INCONCLUSIVE: "❔"}[report.verdict]
    lines = [f"### {mark} {headline(report)}", ""]
    lines += [f"- fix: {report.fix}"] if report.fix else []
    lines += [f"- cannot be told from: {tie}" for tie in report.ties]
    lines += [f"- where: {finding}" for finding in report.findings]
    lines += [f"- note: {remark}" for remark in report.remarks]
    lines += [
        "",
        "| probe | precision | error | allowed | noise | nearest kink | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.case} | {s.precision} | {figure(s.worst.error)} | {figure(s.worst.tolerance)} | {figure(s.noise)} "
        f"| {figure(s.margin)} | {s.verdict}{': ' + s.remark if s.remark else ''} |"
        for s in report.sittings
    ]
    shown = worst_sitting(report)
    if shown is not None:
        lines += [
            "",
            f"{shown.case}, {shown.precision}:",
            "",
            "| parameter | error | allowed | scale | cosine | worst entry | got | expected |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {r.name} | {r.error:.1e} | {r.tolerance:.1e} | {figure(r.scale, '.5f')} | {figure(r.cosine, '.6f')} "
            f"| {list(r.worst)} | {r.got:.6g} | {r.expected:.6g} |"
            for r in shown.rows
        ]
    return "\n".join([*lines, "", f"`{report.about.get('again', '')}`", ""])


def as_json(report):
    """JSON text."""
    return json.dumps(record(report), indent=1)


def record(report):
    """The report as JSON can hold it."""
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
        "sittings": [
            {
                "case": s.case,
                "precision": s.precision,
                "verdict": s.verdict,
                "remark": s.remark,
                "misfit": number(s.misfit),
                "noise": number(s.noise),
                "margin": number(s.margin),
                "parameters": [{k: number(v) for k, v in r._asdict().items()} for r in s.rows],
            }
            for s in report.sittings
        ],
    }


def number(value):
    """A value as JSON knows it: not infinite, no NaN."""
    return None if isinstance(value, float) and not isfinite(value) else value


def junit(report):
    """JUnit XML: a test case for each sitting; what is inconclusive counts as skipped."""
    cases = []
    for s in report.sittings:
        name = quoteattr(f"{s.case} {s.precision}")
        said = quoteattr(headline(report)[:200])
        inside = {
            RIGHT: "",
            WRONG: f"<failure message={said}>{escape(text(report))}</failure>",
            INCONCLUSIVE: f"<skipped message={said}/>",
        }[s.verdict]
        cases.append(f'  <testcase classname="refmaml.doctor" name={name}>{inside}</testcase>')
    if report.verdict == WRONG and all(s.verdict != WRONG for s in report.sittings):
        failure = f"<failure message={quoteattr(report.diagnosis)}/>"
        cases.append(
            f'  <testcase classname="refmaml.doctor" name="repeated calls">{failure}</testcase>'
        )
    failures = sum("<failure" in c for c in cases)
    skipped = sum("<skipped" in c for c in cases)
    head = f'<testsuite name="refmaml doctor" tests="{len(cases)}" failures="{failures}" errors="0" skipped="{skipped}">'
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *cases, "</testsuite>", ""])
