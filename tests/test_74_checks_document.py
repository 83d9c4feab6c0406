"""docs/checks.md: every program and every command in it prints what the page says."""

import re
from pathlib import Path

import pytest

import refmaml as rm
from refmaml.cli import main

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/checks.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```\n```text\n(.*?)^```", PAGE, re.S | re.M)
ROUNDING = re.compile(r"\d(\.\d)?e-(0[9]|1\d|2\d|3\d)")  # figures below 1e-8


def without_rounding(text):
    """A text whose figures of the size of rounding are all the same.

    They depend on the order of sums in the machine's libraries."""
    return re.sub(r" +", " ", ROUNDING.sub("rounding", text.replace(" 0.0e+00", " 1.0e-16")))


@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=range(len(BLOCKS)))
def test_a_program_of_the_page_prints_what_the_page_says(
    code, printed, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command, _, expected = printed.partition("\n")
    if command.startswith("$ refmaml "):
        import shlex

        Path("mine.py").write_text(code)
        status = main(shlex.split(command.removeprefix("$ refmaml ")))
        assert status == {"RIGHT": 0, "WRONG": 1, "INCONCLUSIVE": 3}[expected.split(":")[0]]
    else:
        expected = printed
        exec(compile(code, "checks.md", "exec"), {})
    assert without_rounding(capsys.readouterr().out) == without_rounding(expected)


def test_the_page_has_a_transcript_for_each_check_and_all_of_its_code_is_run():
    assert len(BLOCKS) == PAGE.count("```python") == 8
    for part in ("gradient", "hvp", "layer", "solve", "hypergradient", "rl-meta-gradient"):
        name = part.replace("-", "_")
        assert f"$ refmaml check {part} mine.py" in PAGE and f"`rm.check_{name}(" in PAGE


def test_every_check_of_the_package_is_on_the_page():
    for name in rm.__all__:
        assert not name.startswith("check_") or f"rm.{name}(" in PAGE
