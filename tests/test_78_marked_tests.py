"""The section of `make gpu` that runs the tests with the mark gpu."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from refmaml.bench.gpu import marked_tests

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def read(path):
    return json.loads(path.read_text())


# This file has no such test.
HEAD = "import pytest, warnings\npytestmark = pytest.mark." + "gpu\n"


@pytest.mark.parametrize(
    ("text", "status", "counts"),
    [
        ("def test_a(): warnings.warn('old')\ndef test_b(): pass", 0, (2, 0, 0)),
        ("def test_a(): pass\ndef test_b(): assert 1 == 2", 1, (1, 1, 0)),
        ("def test_a(): pass\ndef test_b(): pytest.skip('no GPU')", 1, (1, 0, 1)),
        ("def test_a(): pass\nimport no_such_module", 1, (0, 0, 0)),
    ],
    ids=["pass", "one fails", "one is skipped", "a file is broken"],
)
def test_the_suite_passes_where_every_marked_test_did(tmp_path, text, status, counts):
    (tmp_path / "test_marked.py").write_text(HEAD + text)
    (tmp_path / "test_other.py").write_text(
        "import no_such_module"
    )  # not marked: not even imported
    program = [sys.executable, "-m", "refmaml.bench.gpu.marked_tests"]
    options = ["-o", "markers=gpu: needs one"]
    command = [*program, tmp_path / "found.json", tmp_path, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = read(tmp_path / "found.json")
    assert done.returncode == status, done.stdout + done.stderr
    assert found["passed"] == (status == 0) and tuple(found["counts"].values()) == counts
    assert bool(found["broken"]) == ("no_such" in text)


def test_the_tests_on_a_gpu_have_the_mark():
    names = [Path(name).name for name in marked_tests.marked_files(ROOT / "tests")]
    assert "test_17_cuda_on_gpu.py" in names and Path(__file__).name not in names


STAND_IN = """import sys
sys.path[:0] = [{tests!r}]
from gpu_stand_in import named_cuda, right_kernels, wrong_by_a_thousandth
from refmaml import kernels
kernels.cuda = lambda *given, **options: {made}
from refmaml.bench.gpu import marked_tests
sys.exit(marked_tests.main({path!r}, {tests!r}, ["-k", "losses_and_vectors"]))
"""


@pytest.mark.parametrize(
    ("made", "status"),
    [("named_cuda(right_kernels())", 0), ("wrong_by_a_thousandth('squared_error_backward')", 1)],
    ids=["right", "wrong"],
)
def test_a_wrong_kernel_fails_the_tests_of_the_section(tmp_path, made, status):
    code = STAND_IN.format(tests=str(ROOT / "tests"), path=str(tmp_path / "found.json"), made=made)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    failed = [
        name
        for name, test in read(tmp_path / "found.json")["tests"].items()
        if test["outcome"] == "failed"
    ]
    assert bool(failed) == bool(status) and all("losses" in name for name in failed)
