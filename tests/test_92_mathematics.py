"""docs/mathematics/: every block of code runs and prints what stands below it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted(
    path for path in (ROOT / "docs" / "mathematics").glob("*.md") if path.name != "README.md"
)
BLOCK = re.compile(r"^```python\n(.*?)^```\n+(?:^```text\n(.*?)^```$)?", re.S | re.M)


def differences(text, capsys):
    """[(printed, written)] of the blocks that print something else."""
    names, found, count = {}, [], 0
    for code, written in BLOCK.findall(text):
        exec(compile(code, "chapter", "exec"), names)
        printed = capsys.readouterr().out
        count += 1
        if printed != written:
            found.append((printed, written))
    assert count == text.count("```python")
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_blocks_of_a_chapter_print_what_stands_below_them(path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert differences(path.read_text(), capsys) == []


def test_a_block_that_prints_something_else_is_found(capsys):
    text = "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n"
    assert differences(text, capsys) == [("2\n", "3\n")]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_computes_something(path):
    assert "```python" in path.read_text()
