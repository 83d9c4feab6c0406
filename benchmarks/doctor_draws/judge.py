"""Judges drawn functions with the doctor, and writes what it said of each.

    python benchmarks/doctor_draws/judge.py --right 500 --wrong 500 --out draws.json

Right functions must be called right; wrong ones wrong, with a true name or a true
place. Of a wrong function that is called right, `misfit` says that it differs from the
truth by less than rounding on every case. An interrupted run goes on where it was.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from time import process_time

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from draws import draw

import refmaml as rm


def judged(drawn, precision="float64"):
    """{"verdict", "said", ...} of one Draw."""
    started = process_time()
    row = {"seed": drawn.seed, "function": drawn.text}
    row |= {"kind": drawn.kind.name if drawn.kind else None}
    try:
        report = rm.check_meta_gradient(
            drawn.function,
            drawn.method,
            framework=drawn.framework,
            probes=drawn.probes,
            precision=precision,
            repeats=2,
            seconds=30,
        )
        row |= {"verdict": report.verdict, "said": report.diagnosis}
        row |= {"misfit": max(r.misfit for r in report.results) if report.results else None}
    except rm.ArgumentError as error:
        row |= {"verdict": "error", "said": str(error)}
    if drawn.kind:
        row |= {"known": drawn.kind.known, "correct": truth_of(drawn.kind, row)}
    return row | {"seconds": round(process_time() - started, 2)}


def truth_of(kind, row):
    """ "named", "placed", "neither", or "called right"."""
    if row["verdict"] == "right":
        return "called right"
    said = row["said"]
    if any(word in said for word in kind.words):
        return "named"
    return "placed" if any(place in said for place in kind.places) else "neither"


def summary(rows):
    """Counts of the right and of the wrong ones."""
    right = [r for r in rows if r["kind"] is None]
    wrong = [r for r in rows if r["kind"] is not None]
    return {
        "right": dict(Counter(r["verdict"] for r in right)),
        "wrong": dict(Counter(r["verdict"] for r in wrong)),
        "said of the wrong": dict(Counter(r["correct"] for r in wrong)),
        "kinds": len({r["kind"] for r in wrong}),
        "kinds in no dictionary": len({r["kind"] for r in wrong if not r["known"]}),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--right", type=int, default=500, metavar="N")
    parser.add_argument("--wrong", type=int, default=500, metavar="N")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("draws.json"))
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    done = {(r["seed"], r["kind"] is not None) for r in rows}
    wanted = [(seed, False) for seed in range(options.right)]
    wanted += [(seed, True) for seed in range(options.wrong)]
    for seed, wrong in wanted:
        if (seed, wrong) in done:
            continue
        rows.append(judged(draw(seed, wrong)))
        print(rows[-1], flush=True)
        record = {"summary": summary(rows), "versions": versions(), "rows": rows}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(summary(rows), indent=1))


def versions():
    """Versions of what took part."""
    found = {"refmaml": rm.__version__, "numpy": np.__version__}
    for name in ("torch", "jax"):
        module = sys.modules.get(name)
        found |= {name: module.__version__} if module else {}
    return found


if __name__ == "__main__":
    main()
