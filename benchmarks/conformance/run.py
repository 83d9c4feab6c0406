"""Which libraries are right? The doctor checks every method of each installed one.

    python benchmarks/conformance/run.py --out benchmarks/conformance

Each library has a process of its own (worker.py): one that crashes, or does not end,
does not take the others with it. What is not installed is listed with the reason.

Writes conformance.json (every error, versions, machine) and conformance.md, the table
of it. Install with pip install torch==2.13.0 and then pip install '.[conformance]'.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from output import add_out
from table import markdown

from refmaml.environment import circumstances
from refmaml.errors import RefmamlError, expect
from refmaml.training.files import durable_write, make_folder, write_json

HERE = Path(__file__).resolve().parent
SCHEMA, LIMIT = 1, 1200  # seconds a library may take
# name in the table: (module of adapters, what must be importable)
LIBRARIES = {
    "pytorch-loop": ("torch_loop", "torch"),
    "torch.func": ("torch_func", "torch"),
    "higher": ("higher_loop", "higher"),
    "learn2learn": ("learn2learn_maml", "learn2learn"),
    "torchopt": ("torchopt_meta", "torchopt"),
    "betty": ("betty_problems", "betty"),
    "jax": ("jax_grad", "jax"),
    "jaxopt": ("jaxopt_solvers", "jaxopt"),
    "optax": ("optax_sgd", "optax"),
}


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
    """The result of a library's worker: {"name", "versions", "methods"}.

    "failed" is added if it ended early, with the reason.
    """
    module, _ = LIBRARIES[name]
    path = Path(folder) / f"{name}.json"
    try:
        done = subprocess.run(
            [sys.executable, HERE / "worker.py", module, path],
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        last_line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        reason = None if done.returncode == 0 else f"exit status {done.returncode}: {last_line}"
    except subprocess.TimeoutExpired:
        reason = f"not done after {LIMIT} seconds"
    found = (
        json.loads(path.read_text())
        if path.exists()
        else {"name": name, "versions": {}, "methods": {}}
    )
    return found | ({"failed": reason} if reason else {})


def main(argv=None):
    """Examine, write, print the table; returns 0: the verdicts are the result."""
    arguments = parse(argv)
    out, started = make_folder(arguments.out), perf_counter()
    found, absent = examine_all(arguments.only)
    record = {
        "schema": SCHEMA,
        "command": "python benchmarks/conformance/run.py",
        **circumstances(),
        "seconds": round(perf_counter() - started, 1),
        "libraries": found,
        "absent": absent,
    }
    write_json(out / "conformance.json", record)
    with durable_write(out / "conformance.md") as file:
        file.write(markdown(record).encode())
    print(markdown(record))
    return 0


def examine_all(names):
    """([the result of each library], {absent library: why})."""
    found, absent = [], {}
    with TemporaryDirectory() as folder:
        for name in names:
            needed = LIBRARIES[name][1]
            if find_spec(needed) is None:
                absent[name] = f"{needed} is not installed"
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            found.append(examine(name, folder))
    return found, absent


def parse(argv):
    """The command line. Raises ArgumentError for an unknown library."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(LIBRARIES),
        metavar="LIB",
        help=f"some of {', '.join(LIBRARIES)}",
    )
    add_out(parser)
    arguments = parser.parse_args(argv)
    for name in arguments.only:
        expect(name in LIBRARIES, "--only", f"some of {', '.join(LIBRARIES)}", name)
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RefmamlError as error:
        sys.exit(f"run.py: {error}")
