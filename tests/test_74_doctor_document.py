"""docs/doctor.md: its program gets the verdict that the page says."""

import re
import shlex
from pathlib import Path

import pytest

import refmaml as rm
from refmaml.cli import doctor as command
from refmaml.cli import main

PAGE = (Path(__file__).parent.parent / "docs/doctor.md").read_text()


@pytest.mark.frameworks("torch")
def test_the_program_of_the_page_gets_the_verdict_that_the_page_says(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE[: PAGE.index("## pytest")], re.S | re.M)
    transcript = re.search(r"^```\n\$ (refmaml doctor own\.py.*?)^```", PAGE, re.S | re.M)[1]
    words, _, printed = transcript.replace("\\\n", "").partition("\n")
    (tmp_path / "own.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(words)[1:], "--repeats", "0"]) == 1
    out = capsys.readouterr().out.splitlines()
    expected = printed.splitlines()
    assert out[:4] == expected[:4]  # verdict, fix, and the head of the table
    case, precision, error, *_ = expected[4].split("  ")[1].split(), *expected[4].split()[2:4]
    assert out[4].split()[:4] == [*case, precision, error]


def test_the_declarations_of_the_page_are_options_and_arguments():
    table = re.search(r"\| the function has \|.*?\n\n", PAGE, re.S)[0]
    options = re.findall(r"`(--[\w-]+)", table)
    assert len(options) == 9
    for option in options:
        assert option[2:].replace("-", "_") in command.REPEATED
    import inspect

    known = set(inspect.signature(rm.check_meta_gradient).parameters)
    for name in re.findall(r"\| `(\w+)=", table):
        assert name in known
