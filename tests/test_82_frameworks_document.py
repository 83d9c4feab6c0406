"""docs/frameworks.md: every program in it prints what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/frameworks.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```", PAGE, re.S | re.M)


def marked(code, printed):
    """A program with the mark of the framework that it imports."""
    name = "jax" if "import jax" in code else "torch"
    return pytest.param(code, printed, marks=pytest.mark.frameworks(name))


@pytest.mark.parametrize(("code", "printed"), [marked(*program) for program in PROGRAMS])
def test_a_program_of_the_page_prints_what_the_page_says(code, printed, tmp_path):
    environment = os.environ | {"PYTHONPATH": python_path(), "PYTHONWARNINGS": "error"}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert out.stdout == printed


def python_path():
    """This tree first, then what the tests have."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_the_page_has_a_program_for_each_way_and_all_of_its_code_is_run():
    assert len(PROGRAMS) == 4 == PAGE.count("```python")
    code = "".join(program for program, _ in PROGRAMS)
    assert all(name in code for name in ("rm.from_torch(", ".to_torch()", ".to_jax()"))
