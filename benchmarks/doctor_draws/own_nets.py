"""What the doctor says of mistakes on nets that refmaml has no layers for.

    python benchmarks/doctor_draws/own_nets.py --out own_nets.json

A residual net with group norm, an LSTM and attention with layer norm in PyTorch, a
convolutional net in JAX and one in NumPy, and their mistakes: tests/own_net_tables.py.
Of each net first the verdict on the right function, in a process of its own, then that
on each mistake. An interrupted run goes on where it was.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from own_net_tables import TABLES, TORCH, judged, right_verdict

from refmaml.environment import circumstances
from refmaml.storage.atomic import atomic_write

HERE = Path(__file__)
TITLES = {
    "residual": "residual net with group norm, PyTorch",
    "lstm": "LSTM, PyTorch",
    "attention": "attention with layer norm, PyTorch",
    "jax": "convolutional net, JAX",
    "numpy": "convolutional net, NumPy, gradient by hand",
}


def in_a_fresh_process(name):
    """right_verdict of a net, computed in a new process: compilation counts."""
    command = [sys.executable, str(HERE), "--right", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def verdict_on_right(name):
    """right_verdict of a net, on one thread as the mistakes are."""
    limit_threads(name)
    return right_verdict(TABLES[name]())


def limit_threads(name):
    """One thread of PyTorch: other work on the machine then changes less."""
    if name in TORCH:
        import torch

        torch.set_num_threads(1)


def summary(nets):
    """{net: {"tried": "n of m", "named": n, "no name": n, "a false name": n,
    "cpu_seconds": s}}, what is not there being 0."""
    found = {}
    for name, net in nets.items():
        rows, tried = net["rows"], f"{len(net['rows'])} of {net['mistakes']}"
        seconds = round(sum(row["cpu_seconds"] for row in rows), 1)
        counts = Counter(row["result"] for row in rows)
        found[name] = {"tried": tried, **counts, "cpu_seconds": seconds}
    return found


def record_of(nets):
    """What the file holds."""
    about = circumstances()
    for name in ("torch", "jax"):
        try:
            about["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    command = "python benchmarks/doctor_draws/own_nets.py"
    return {"command": command, **about, "summary": summary(nets), "nets": nets}


def line(net):
    """The line of docs/results.md on a net."""
    right, rows = net["right"], net["rows"]
    counts = Counter(row["result"] for row in rows)
    found = [counts[result] for result in ("named", "no name", "a false name")]
    cells = f"{right['error']:.0e}", f"{len(rows)} of {net['mistakes']}", *found
    return f"| {net['title']} | {' | '.join(map(str, cells))} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE.with_suffix(".json"))
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), metavar="NET")
    parser.add_argument("--right", choices=TABLES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.right:
        print(json.dumps(verdict_on_right(options.right)))
        return
    nets = json.loads(options.out.read_text())["nets"] if options.out.exists() else {}
    for name in options.only:
        limit_threads(name)
        table = TABLES[name]()
        if name not in nets:
            about = {"title": TITLES[name], "mistakes": len(table.mistakes)}
            nets[name] = {**about, "right": in_a_fresh_process(name), "rows": []}
        done = {row["mistake"] for row in nets[name]["rows"]}
        for label in table.mistakes:
            if label in done:
                continue
            nets[name]["rows"].append(judged(table, label))
            print(name, nets[name]["rows"][-1], flush=True)
            with atomic_write(options.out) as file:
                file.write((json.dumps(record_of(nets), indent=1) + "\n").encode())
    print(json.dumps(summary(nets), indent=1))


if __name__ == "__main__":
    main()
