"""docs/add_a_mistake.md, carried out on a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "add_a_mistake.md"


def blocks(kind):
    """The texts of the page's code blocks of one kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def apply(folder, diff):
    """Apply one diff block; the lines without a plus must occur once in the file."""
    head, *lines = diff.splitlines()
    path = folder / head.removeprefix("--- ")
    before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    after = "".join(f"{line[1:]}\n" for line in lines)
    text = path.read_text()
    assert text.count(before) == 1, before
    path.write_text(text.replace(before, after))


def copy_of_the_package(folder):
    """refmaml/ and kernels/ without compiled files."""
    for name in ("refmaml", "kernels"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)


def first_lines(folder, command, count):
    """The first lines that a command of the copy prints."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout.splitlines()[:count]


@pytest.fixture
def folder(tmp_path):
    copy_of_the_package(tmp_path)
    (script,) = blocks("python")
    (tmp_path / "mine.py").write_text(script)
    return tmp_path


def test_two_edits_teach_the_doctor_a_new_mistake(folder):
    edits, (transcript,) = blocks("diff"), blocks("text")
    command, *expected = transcript.splitlines()
    command = command.removeprefix("$ ").split()
    assert len(edits) == 3 and len(expected) == 2
    before = first_lines(folder, [*command, "--seconds", "1", "--precision", "float64"], 1)
    assert before[0].startswith("WRONG: no mistake of the dictionary")
    for edit in edits:
        apply(folder, edit)
    assert first_lines(folder, command, len(expected)) == expected
