"""Which libraries are right? The doctor checks every method of each installed one.

    python benchmarks/conformance/run.py --out benchmarks/conformance
    python benchmarks/conformance/run.py --out benchmarks/conformance --only rules

Each library has a process of its own (worker.py): one that crashes, or does not end,
does not take the others with it. What is not installed is listed with the reason. The
second command measures the table of update rules again and keeps all other results of
the folder: each result names the run that measured it.

Writes conformance.json (every error, and for each run its date, versions and machine)
and conformance.md, the tables of it. Install with pip install torch==2.13.0 and then
pip install '.[conformance]'.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from output import add_out
from rules import COLUMNS
from table import markdown

from refmaml.environment import circumstances
from refmaml.errors import RefmamlError, expect
from refmaml.training.files import durable_write, make_folder, write_json

HERE = Path(__file__).resolve().parent
SCHEMA, LIMIT = 2, 3600  # seconds a part may take
# name for --only: (module of adapters, what must be importable)
LIBRARIES = {
    "pytorch-loop": ("torch_loop", "torch"),
    "torch.func": ("torch_func", "torch"),
    "higher": ("higher_loop", "higher"),
    "learn2learn": ("learn2learn_maml", "learn2learn"),
    "torchopt": ("torchopt_meta", "torchopt"),
    "betty": ("betty_problems", "betty"),
    "jax": ("jax_grad", "jax"),
    "jaxopt": ("jaxopt_solvers", "jaxopt"),
    "optax": ("optax_loop", "optax"),
}
RULES = {
    f"rules:{name}": (column.module, column.needs, column.name) for name, column in COLUMNS.items()
}
PARTS = LIBRARIES | RULES


def environment(folder):
    """One thread for each library; JAX caches compiled code on disk."""
    cache = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    path = os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])
    return os.environ | cache | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def examine(name, folder):
    """The result of a worker: {"part", "name", "versions", "methods" or "rules"}.

    "failed" is added if it ended early, with the reason.
    """
    module, _, *column = PARTS[name]
    path = Path(folder) / f"{list(PARTS).index(name)}.json"
    try:
        done = subprocess.run(
            [sys.executable, HERE / "worker.py", module, path, *column],
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        last_line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        reason = None if done.returncode == 0 else f"exit status {done.returncode}: {last_line}"
    except subprocess.TimeoutExpired:
        reason = f"not done after {LIMIT} seconds"
    nothing = {"name": name, "versions": {}, "rules" if column else "methods": {}}
    found = json.loads(path.read_text()) if path.exists() else nothing
    return {"part": name} | found | ({"failed": reason} if reason else {})


def examine_all(names):
    """([the result of each part], {absent part: why})."""
    found, absent = [], {}
    with TemporaryDirectory() as folder:
        for name in names:
            needed = PARTS[name][1]
            if find_spec(needed) is None:
                absent[name] = f"{needed} is not installed"
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            found.append(examine(name, folder))
    return found, absent


# ---- results of several runs ---------------------------------------------------------

EMPTY = {"runs": [], "libraries": [], "rules": [], "absent": {}}


def earlier(path):
    """The record in a file, or an empty one where there is none."""
    if not path.exists():
        return EMPTY
    record = json.loads(path.read_text())
    expect(record.get("schema") == SCHEMA, "--out", f"results of schema {SCHEMA}", str(path))
    return record


def merged(before, found, absent, run):
    """The record of earlier and of new results; "run" says which run measured each.

    A part that is examined again loses its earlier result; one that is absent now keeps
    it. Runs of which no result is left are dropped.
    """
    results = {result["part"]: result for result in before["libraries"] + before["rules"]}
    runs = [*before["runs"], run]
    results |= {result["part"]: result | {"run": len(runs) - 1} for result in found}
    used = sorted({result["run"] for result in results.values()} | {len(runs) - 1})
    results = {
        part: result | {"run": used.index(result["run"])} for part, result in results.items()
    }
    return {
        "schema": SCHEMA,
        "runs": [runs[i] for i in used],
        "libraries": [results[part] for part in LIBRARIES if part in results],
        "rules": [results[part] for part in RULES if part in results],
        "absent": {
            part: why for part, why in (before["absent"] | absent).items() if part not in results
        },
    }


# ---- the command ---------------------------------------------------------------------


def main(argv=None):
    """Examine, write, print the tables; returns 0: the verdicts are the result."""
    arguments = parse(argv)
    out, started = make_folder(arguments.out), perf_counter()
    path = out / "conformance.json"
    before = earlier(path) if arguments.only else EMPTY
    found, absent = examine_all(chosen(arguments.only))
    only = ["--only", *arguments.only] if arguments.only else []
    run = {
        "command": shlex.join(["python", "benchmarks/conformance/run.py", *only]),
        "date": date.today().isoformat(),
        **circumstances(),
        "seconds": round(perf_counter() - started, 1),
    }
    record = merged(before, found, absent, run)
    write_json(path, record)
    with durable_write(out / "conformance.md") as file:
        file.write(markdown(record).encode())
    print(markdown(record))
    return 0


def chosen(names):
    """The parts that --only names: all where it is not given, "rules" for a table."""
    if not names:
        return list(PARTS)
    return [part for part in PARTS if part in names or ("rules" in names and part in RULES)]


def parse(argv):
    """The command line. Raises ArgumentError for an unknown part."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    known = [*LIBRARIES, "rules", *RULES]
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PART",
        help="examine these and keep all other results in --out: some of "
        + ", ".join(map(repr, known)),
    )
    add_out(parser)
    arguments = parser.parse_args(argv)
    for name in arguments.only:
        expect(name in known, "--only", f"some of {', '.join(known)}", name)
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RefmamlError as error:
        sys.exit(f"run.py: {error}")
