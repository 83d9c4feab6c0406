"""Which planted mistakes do learn2learn's own tests find?

    pip download --no-deps --no-build-isolation --no-binary :all: learn2learn==0.2.0
    tar xf learn2learn-0.2.0.tar.gz
    python benchmarks/conformance/own_tests.py learn2learn-0.2.0 --out DIR

A wrong Hessian is planted in learn2learn's path; then its tests of its algorithms run,
and the doctor. Its source distribution has the tests; it must be installed as well, see
benchmarks/README.md. Writes own_tests.json.
"""

import argparse
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from output import add_out

from refmaml.environment import circumstances
from refmaml.training.files import make_folder, write_json

HERE = Path(__file__).resolve().parent
TESTS = [f"tests/unit/algorithms/{name}_test.py" for name in ("maml", "metasgd", "gbml")]
PLANTED = {"nothing": 1, "the inner gradient detached": 0, "H doubled": 2, "H's sign flipped": -1}


def run(factor, arguments, folder):
    """The last line that a new Python process prints, with a factor planted."""
    path = os.pathsep.join(sys.path[:2])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PLANTED": str(factor), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    return (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""])[-1]


def counts(line):
    """{"passed": 18, "failed": 0} of pytest's last line."""
    return {
        what: int((re.search(rf"(\d+) {what}", line) or [0, 0])[1]) for what in ("passed", "failed")
    }


DOCTOR = """import warnings; warnings.simplefilter("ignore")
import planted; planted.pytest_configure(None)
from adapters.learn2learn_maml import LIBRARY
from worker import METHODS
import refmaml as rm
method = LIBRARY.methods["MAML"]
print(rm.check_meta_gradient(method, METHODS["MAML"], framework="torch", repeats=0).verdict)"""


def main(argv=None):
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="learn2learn's source distribution, unpacked")
    add_out(parser)
    arguments = parser.parse_args(argv)
    out, found = make_folder(arguments.out), {}
    for name, factor in PLANTED.items():
        line = run(
            factor,
            ["-P", "-m", "pytest", "-q", "-p", "planted", "-p", "no:cacheprovider", *TESTS],
            arguments.source,
        )
        found[name] = counts(line) | {"doctor": run(factor, ["-c", DOCTOR], HERE)}
        print(name, found[name], flush=True)
    about = circumstances()
    about["versions"] |= {
        name: metadata.version(name) for name in ("learn2learn", "torch", "pytest")
    }
    command = "python benchmarks/conformance/own_tests.py learn2learn-0.2.0"
    write_json(
        out / "own_tests.json",
        {"schema": 1, "command": command, "tests": TESTS, **about, "planted": found},
    )


if __name__ == "__main__":
    main()
