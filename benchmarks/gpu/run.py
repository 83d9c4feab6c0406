"""Everything that only a GPU can show, into one JSON file: `make gpu`, or

    python benchmarks/gpu/run.py [--only SECTION ...] [--seconds S]
                                 [--limit SECTION=S ...] [--out FILE]

It runs with the Python that calls it, from its own checkout. It needs NumPy, SciPy,
CuPy and pytest; it installs and downloads nothing. PyTorch, JAX and compute-sanitizer
are used if they are installed; the result names what is missing. Sections that the file
has already are kept unless they run again, so the whole can be done in several calls.
Exit status: 0; 1 if a check failed or took too long; 2 without a GPU or after bad
input.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from refmaml.bench.gpu.sections import FAILED, TIMED_OUT, Section, run_section, run_sections
from refmaml.bench.workloads import DEFAULT_ON_GPU, TABLE
from refmaml.cli.bench_arguments import positive
from refmaml.environment import circumstances
from refmaml.errors import DataError, RefmamlError, expect
from refmaml.training.files import make_folder, write_json

ROOT = Path(__file__).resolve().parents[2]
SCHEMA, OUT, NO_GPU = 1, ROOT / "benchmarks" / "gpu" / "gpu.json", 2


def program(module, *arguments):
    """(file) -> the command of a module whose first argument is the file."""
    return lambda path: [sys.executable, "-m", module, str(path), *map(str, arguments)]


def bench(section, *options):
    """(file) -> the command of one section of the bench; its file is bench.json."""
    start = [sys.executable, "-m", "refmaml", "bench", "--kernels", "cuda", "--only", section]
    return lambda path: [*start, *options, "--out", str(path.parent)]


def verify(path):
    return [sys.executable, "-m", "refmaml", "verify", "--kernels", "cuda", "--json", str(path)]


GPU = "refmaml.bench.gpu"
DEVICE = Section("device", "what it is measured on", program(f"{GPU}.device_info"), 60)
SECTIONS = (
    Section(
        "ladder", "the derivative ladder on the cuda kernels, in float64 and float32", verify, 300
    ),
    Section(
        "tests", "the tests that need a GPU", program(f"{GPU}.marked_tests", ROOT / "tests"), 300
    ),
    Section(
        "numba",
        "the Numba kernels against the reference kernels",
        program("refmaml.cli.verify_numba_cuda"),
        300,
    ),
    Section(
        "determinism",
        "the same bits in 100 runs of every kernel and of whole meta-gradients",
        program(f"{GPU}.determinism"),
        400,
    ),
    Section(
        "graph",
        "a replayed CUDA graph has the bits of launch by launch",
        program(f"{GPU}.replay"),
        120,
    ),
    Section(
        "sanitizer",
        "compute-sanitizer: memcheck, racecheck, initcheck",
        program(f"{GPU}.sanitizer"),
        400,
    ),
    Section(
        "bench-kernels",
        "kernels beside the device's limits and cuDNN",
        bench("kernels"),
        550,
        "bench.json",
    ),
    Section(
        "bench-ourselves",
        "launching, products over gradients, float64",
        bench("ourselves"),
        180,
        "bench.json",
    ),
    # An implementation may take two minutes to compile. So each workload is a section:
    # a call may run few of them, and one that fails loses no other.
    *(
        Section(
            f"meta-{name}",
            f"whole meta-gradients beside PyTorch and JAX: {TABLE[name].title}",
            bench("meta", "--workloads", name, "--seconds", "2", "--limit", "150"),
            580,
            "bench.json",
        )
        for name in DEFAULT_ON_GPU
    ),
)


def main(argv=None, device=DEVICE, sections=SECTIONS):
    """Run, write, summarise; returns the exit status."""
    arguments, started = parse(argv, sections), perf_counter()
    limits, out = read_limits(arguments.limit, (device, *sections)), Path(arguments.out)
    make_folder(out.parent)
    chosen = [
        s._replace(limit=limits.get(s.name, s.limit))
        for s in sections
        if s.name in (arguments.only or [s.name for s in sections])
    ]
    limit = limits.get(device.name, device.limit)
    probe = run_section(device, limit, section_environment(), log=ignore_line)
    if probe["exit_status"] == NO_GPU:
        print((probe["said"] or ["refmaml: expected a GPU, got none"])[-1], file=sys.stderr)
        return NO_GPU
    stamp = {"code": code_digest()}
    record = {
        "schema": SCHEMA,
        "command": "make gpu",
        **circumstances(),
        "sections": {**earlier_sections(out, probe), device.name: probe | stamp},
    }
    write_json(out, record)
    left = None if arguments.seconds is None else arguments.seconds - (perf_counter() - started)
    log = ignore_line if arguments.quiet else print_line
    outcomes = {device.name: probe["status"]} | run_sections(
        chosen, out, record, stamp, left, section_environment(), log
    )
    print("\n".join(f"{name:<16} {status}" for name, status in outcomes.items()), out, sep="\n")
    return int(any(status in (FAILED, TIMED_OUT) for status in outcomes.values()))


def parse(argv, sections):
    """The command line. Raises ArgumentError."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="SECTION",
        help=f"some of {', '.join(s.name for s in sections)}",
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        help="for all sections together; a section without time left is not run",
    )
    parser.add_argument(
        "--limit", nargs="+", default=[], metavar="SECTION=S", help="seconds for one section"
    )
    parser.add_argument(
        "--out",
        default=str(OUT),
        metavar="FILE",
        help=f"where the result goes (default {OUT.relative_to(ROOT)})",
    )
    parser.add_argument("--quiet", action="store_true", help="only the summary")
    arguments = parser.parse_args(argv)
    for name in arguments.only or ():
        expect(
            name in [s.name for s in sections],
            "--only",
            f"some of {', '.join(s.name for s in sections)}",
            name,
        )
    if arguments.seconds is not None:
        arguments.seconds = positive("--seconds", arguments.seconds)
    return arguments


def read_limits(texts, sections):
    """{section: seconds} of texts SECTION=S. Raises ArgumentError."""
    limits = {}
    for text in texts:
        name, equals, value = text.partition("=")
        expect(
            equals and name in [s.name for s in sections],
            "--limit",
            "SECTION=S, a section and its seconds",
            text,
        )
        limits[name] = positive("--limit", value)
    return limits


def ignore_line(line):
    """The log of a quiet run."""


def print_line(line):
    """The log of a run."""
    print(line, flush=True)


def section_environment():
    """The variables of every section.

    This checkout is first on the path. JAX stays off the GPU, where it would take most
    of the memory; the bench puts its own JAX processes there.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {
        "PYTHONPATH": path,
        "JAX_PLATFORMS": "cpu",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONUNBUFFERED": "1",
    }


def earlier_sections(path, probe):
    """The sections of an earlier call, {} if the file does not exist.

    Raises DataError if the file is of another device, or not written by this command.
    """
    if not path.exists():
        return {}
    try:
        sections = json.loads(path.read_text())["sections"]
        earlier = device_name(sections["device"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"--out: expected a new file or one that this command wrote, got {path}"
        ) from None
    name = device_name(probe)
    if name != earlier and None not in (name, earlier):
        raise DataError(f"--out: expected a file of {name}, got one of {earlier}: {path}")
    return sections


def device_name(probe):
    """The name of the device; None if its section wrote no result."""
    return probe["found"]["device"]["name"] if probe["found"] else None


def code_digest():
    """A sha256 of all measured code: it tells results of different code apart."""
    total = hashlib.sha256()
    for folder in ("kernels", "refmaml", "tests"):
        for path in sorted(p for kind in ("*.py", "*.cu") for p in (ROOT / folder).rglob(kind)):
            total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


if __name__ == "__main__":
    os.chdir(ROOT)
    try:
        sys.exit(main())
    except RefmamlError as error:
        sys.exit(f"run.py: {error}")
