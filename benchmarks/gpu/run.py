"""Everything that only a GPU can show, into one JSON file: `make gpu`, or

    python benchmarks/gpu/run.py [--only SECTION ...] [--seconds S] [--limit SECTION=S ...] [--out FILE]

It runs with the Python it is called with, from the checkout it lies in: NumPy, SciPy, CuPy and pytest are all it needs, and nothing is
installed or fetched. What else is there (PyTorch, JAX, compute-sanitizer) is used; what is not is said. Sections already in the file are
kept unless they are run again, so that the whole can be done in several calls. Exit status: 0, 1 where a check failed or took too long, 2
without a GPU or after bad input.
"""

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from refmaml.bench.gpu.sections import FAILED, TIMED_OUT, Section, run_section, run_sections  # noqa: E402 (after the path)
from refmaml.bench.workloads import DEFAULT, TABLE  # noqa: E402
from refmaml.cli.bench_arguments import positive  # noqa: E402
from refmaml.environment import circumstances  # noqa: E402
from refmaml.errors import DataError, RefmamlError, expect  # noqa: E402
from refmaml.training.files import make_folder, write_json  # noqa: E402

SCHEMA, OUT, NO_GPU = 1, ROOT / "benchmarks" / "gpu" / "gpu.json", 2


def program(module, *arguments):
    """(file) -> the command of a module that takes the file first."""
    return lambda path: [
        sys.executable,
        "-m",
        f"refmaml.bench.gpu.{module}",
        str(path),
        *map(str, arguments),
    ]


def bench(part, *options):
    """(file) -> the command of one part of the bench, which calls its file bench.json."""
    return lambda path: [
        sys.executable,
        "-m",
        "refmaml",
        "bench",
        "--kernels",
        "cuda",
        "--only",
        part,
        *options,
        "--out",
        str(path.parent),
    ]


def verify(path):
    return [sys.executable, "-m", "refmaml", "verify", "--kernels", "cuda", "--json", str(path)]


DEVICE = Section("device", "what it is measured on", program("device_info"), 60)
SECTIONS = (
    Section(
        "ladder", "the derivative ladder on the cuda kernels, in float64 and float32", verify, 300
    ),
    Section("tests", "the tests that need a GPU", program("marked_tests", ROOT / "tests"), 300),
    Section("numba", "the Numba kernels against the reference kernels", NUMBA, 300),
    Section(
        "determinism",
        "the same bits in 100 runs of every kernel and of whole meta-gradients",
        program("determinism"),
        400,
    ),
    Section(
        "graph", "a replayed CUDA graph has the bits of launch by launch", program("replay"), 120
    ),
    Section(
        "sanitizer", "compute-sanitizer: memcheck, racecheck, initcheck", program("sanitizer"), 400
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
    # A implementation may take two minutes to compile: each workload is a section, so that few of them fit into a call and none is lost.
    *(
        Section(
            f"meta-{name}",
            f"whole meta-gradients beside PyTorch and JAX: {TABLE[name].title}",
            bench("meta", "--workloads", name, "--seconds", "2", "--limit", "150"),
            580,
            "bench.json",
        )
        for name in DEFAULT
    ),
)


def main(argv=None, device=DEVICE, sections=SECTIONS):
    """Run, write, summarise; returns the exit status."""
    arguments, started = parse(argv, sections), perf_counter()
    limits, out, tell = (
        read_limits(arguments.limit, (device, *sections)),
        Path(arguments.out),
        told(arguments.quiet),
    )
    make_folder(out.parent)
    chosen = [
        s._replace(limit=limits.get(s.name, s.limit))
        for s in sections
        if s.name in (arguments.only or [s.name for s in sections])
    ]
    probe = run_section(
        device, limits.get(device.name, device.limit), surroundings(), told(quiet=True)
    )  # one line, not two
    if probe["exit_status"] == NO_GPU:
        print((probe["said"] or ["refmaml: expected a GPU, got none"])[-1], file=sys.stderr)
        return NO_GPU
    stamp = {"code": digest()}
    record = {
        "schema": SCHEMA,
        "command": "make gpu",
        **circumstances(),
        "sections": {**kept(out, probe), device.name: probe | stamp},
    }
    write_json(out, record)
    left = None if arguments.seconds is None else arguments.seconds - (perf_counter() - started)
    reached = {device.name: probe["status"]} | run_sections(
        chosen, out, record, stamp, left, surroundings(), tell
    )
    print("\n".join(f"{name:<16} {status}" for name, status in reached.items()), out, sep="\n")
    return int(any(status in (FAILED, TIMED_OUT) for status in reached.values()))


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
        help="for everything together: sections for which nothing is left are not run",
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


def told(quiet):
    """What to do with a line of progress."""
    return (lambda line: None) if quiet else (lambda line: print(line, flush=True))


def surroundings():
    """The variables of every section: this checkout first, and JAX off the GPU, where it would take most of the memory. (The bench puts its
    own JAX there.)"""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {
        "PYTHONPATH": path,
        "JAX_PLATFORMS": "cpu",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "PYTHONUNBUFFERED": "1",
    }


def kept(path, probe):
    """The sections of an earlier call. Raises DataError where the file is another device's, or none of ours."""
    if not path.exists():
        return {}
    try:
        sections = json.loads(path.read_text())["sections"]
        earlier = named(sections["device"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"--out: expected a new file or one that this command wrote, got {path}"
        ) from None
    name = named(probe)
    if name != earlier and None not in (name, earlier):
        raise DataError(f"--out: expected a file of {name}, got one of {earlier}: {path}")
    return sections


def named(probe):
    """The name of the device, None where its section came to no end."""
    return probe["found"]["device"]["name"] if probe["found"] else None


def digest():
    """A sha256 of all code that is measured: results of different code are told apart, with or without git."""
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
