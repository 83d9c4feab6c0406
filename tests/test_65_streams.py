"""Standard streams that are closed, or lack characters; and quiet commands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SMALL
from small_runs import ROOT, left, run

from refmaml.cli import main
from refmaml.cli import train as train_command
from refmaml.log import is_terminal, log
from refmaml.progress import bars_enabled

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]
LOUD = SMALL[:-1]


def shell(redirections, *argv, **environment):
    """A finished `refmaml ARGV REDIRECTIONS` of a shell, which can close streams."""
    words = [sys.executable, "-m", "refmaml", *argv]
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirections}', "sh", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_a_run_with_closed_streams_leaves_what_every_run_leaves(closed):
    run("--steps", "3", out="whole")
    done = shell(closed, "train", *LOUD, "--steps", "3", "--out", "run")
    assert done.returncode == 0 and left("run") == left("whole")
    assert " held-out tasks" in done.stdout or ">&-" in closed.split() or closed.startswith("<&- >")
    assert "step 1/3" in done.stderr or "2>&-" in closed


def test_messages_do_not_get_into_a_file_that_has_a_closed_streams_number():
    """Without a stderr, the first file that is opened would be descriptor 2."""
    done = shell("2>&-", "train", *LOUD, "--steps", "2", "--out", "run", "--lr", "-1")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["ascii", "posix locale"],
)
def test_a_name_that_the_output_cannot_show_is_escaped(environment):
    done = shell("", "train", *SMALL, "--steps", "1", "--out", "ü", **environment)
    assert done.returncode == 0 and done.stderr == "" and "; see \\" in done.stdout
    assert Path("ü/result.json").exists()


def test_log_and_bars_do_without_a_stderr(monkeypatch, capsys):
    with open(os.devnull, "w") as closed:
        pass
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        log("a line")
        assert not is_terminal(stream) and not bars_enabled()
    assert capsys.readouterr().out == ""


def test_quiet_reaches_the_kernels_of_the_process_and_only_during_the_command(monkeypatch):
    seen = []
    monkeypatch.setattr(
        train_command, "conclude", lambda *a: seen.append(os.environ.get("REFMAML_QUIET"))
    )
    monkeypatch.delenv("REFMAML_QUIET", raising=False)
    assert main(["train", *LOUD, "--steps", "1", "--out", "a"]) == 0
    assert main(["train", *LOUD, "--steps", "1", "--out", "b", "--quiet"]) == 0
    assert seen == [None, "1"] and "REFMAML_QUIET" not in os.environ
