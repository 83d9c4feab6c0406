"""Every example runs, prints what examples/README.md says, and has under 40 lines."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
PRINTED = dict(
    re.findall(
        r"`python examples/(\w+\.py)`.*?```text\n(.*?)```",
        (EXAMPLES / "README.md").read_text(),
        re.S,
    )
)
NEEDS_TORCH = "doctor_in_pytorch.py"


def test_the_page_lists_every_example_and_no_other():
    assert set(PRINTED) == {path.name for path in EXAMPLES.glob("*.py")} and len(PRINTED) >= 5


@pytest.mark.parametrize("name", sorted(PRINTED))
def test_an_example_has_fewer_than_40_lines(name):
    assert len((EXAMPLES / name).read_text().splitlines()) < 40


def run(name):
    out = subprocess.run(
        [sys.executable, EXAMPLES / name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout


@pytest.mark.parametrize("name", sorted(set(PRINTED) - {NEEDS_TORCH}))
def test_an_example_prints_the_page_s_output(name):
    assert run(name) == PRINTED[name]


@pytest.mark.frameworks("torch")
def test_the_example_in_pytorch_prints_the_page_s_output():
    """To the digit, but for one error of rounding, which depends on the machine."""

    def digits(text):
        return re.sub(r"\d\.\de-1[4-7]", "?", text)

    assert digits(run(NEEDS_TORCH)) == digits(PRINTED[NEEDS_TORCH])
