"""Fuzzing of the loaders of files."""

import json
import random
import subprocess
import sys

import pytest
from small_runs import ROOT

from refmaml.errors import DataError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folder")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loader", ["checkpoint", "golden", "cache", "omniglot"])
def test_damaged_files_raise_nothing_but_data_errors(reliability, tmp_path, loader):
    import fuzz

    found = fuzz.fuzz(loader, 600, random.Random(1), tmp_path, executions=250)
    assert found["executions"] == 250 and not found["escapes"] and 0 < found["loaded"] < 250


@pytest.mark.filterwarnings("ignore")
def test_a_loader_that_raises_another_exception_is_found(reliability, tmp_path, monkeypatch):
    import fuzz

    monkeypatch.setattr(fuzz, "LOADERS", dict(fuzz.LOADERS))
    fuzz.plant("catch")
    found = fuzz.fuzz("checkpoint", 600, random.Random(1), tmp_path, executions=250)["escapes"]
    assert "tokenize.TokenError" in found


def test_a_loader_that_unpacks_before_its_checks_is_found():
    """In a process of its own, which has not used much memory before."""
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "benchmarks" / "reliability" / "fuzz.py",
            "--seconds",
            "3",
            "--loaders",
            "checkpoint",
            "--plant",
            "memory",
        ],
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 1
        and "too much memory" in json.loads(done.stdout)["loaders"]["checkpoint"]["escapes"]
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loader", ["checkpoint", "golden", "cache", "omniglot"])
def test_a_loader_that_refuses_good_files_is_not_fuzzed(reliability, tmp_path, monkeypatch, loader):
    import fuzz

    def refuse(path):
        raise DataError("planted")

    monkeypatch.setitem(fuzz.LOADERS, loader, (fuzz.LOADERS[loader][0], refuse))
    with pytest.raises(AssertionError, match="a good file is refused"):
        fuzz.fuzz(loader, 600, random.Random(1), tmp_path, executions=1)
