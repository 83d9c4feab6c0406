"""The pytest plugin fails, skips and passes tests, and is imported quickly."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from doctor_script import CODE

ROOT = Path(__file__).parent.parent


TESTS = """
import refmaml as rm
from mine import coarse, first_order, gradient

def test_right(refmaml_check):
    assert refmaml_check(gradient, rm.MAML(0.1, 2), probes=("quadratic",), repeats=0).ok

def test_wrong(refmaml_check):
    refmaml_check(first_order, rm.MAML(0.1, 2), probes=("quadratic",), repeats=0)

def test_unsure(refmaml_check):
    refmaml_check(coarse, rm.MAML(0.1, 2), probes=("quadratic",), repeats=0)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["alone", "xdist"])
def test_the_plugin_fails_skips_and_passes_and_its_first_line_is_short(file, tmp_path, workers):
    if workers:
        pytest.importorskip("xdist")
    (tmp_path / "test_mine.py").write_text(TESTS)
    out = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "refmaml.pytest_plugin",
            "-p",
            "no:cacheprovider",
            *workers,
            "--refmaml-json",
            "all.json",
            "--junitxml",
            "junit.xml",
            "test_mine.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
    )
    assert "1 failed, 1 passed, 1 skipped" in out.stdout, out.stdout + out.stderr
    first = next(line for line in out.stdout.splitlines() if line.startswith("meta-gradient wrong"))
    assert len(first) < 80 and "first-order" in first and "Traceback" not in out.stdout
    records = json.loads((tmp_path / "all.json").read_text())
    assert {r["test"].partition("::")[2]: r["verdict"] for r in records} == {
        "test_right": "right",
        "test_wrong": "wrong",
        "test_unsure": "inconclusive",
    }
    properties = {p.get("value") for p in ET.parse(tmp_path / "junit.xml").iter("property")}
    assert {"right", "wrong", "inconclusive"} <= properties


def test_the_plugin_is_an_entry_point_of_pytest():
    import tomllib

    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "pytest11"
    ]
    assert entry == {"refmaml": "pytest_refmaml"}
    assert '"pytest_refmaml": "refmaml/pytest_plugin"' in (ROOT / "setup.py").read_text()


def test_starting_pytest_imports_neither_numpy_nor_refmaml(tmp_path):
    """The plugin under the name that it is installed by."""
    (tmp_path / "pytest_refmaml").symlink_to(ROOT / "refmaml" / "pytest_plugin")
    (tmp_path / "test_mine.py").write_text(
        "import sys\n"
        "def test_modules():\n"
        "    assert 'pytest_refmaml' in sys.modules\n"
        "    assert not {'numpy', 'refmaml'} & set(sys.modules)\n"
        "def test_fixture(refmaml_check):\n"
        "    assert callable(refmaml_check) and 'refmaml' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_refmaml", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        },
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_a_pytest_report_that_cannot_be_written_is_an_error_at_once(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "refmaml.pytest_plugin",
            "--refmaml-json",
            "nowhere/x.json",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
    )
    assert (
        done.returncode == 4
        and "--refmaml-json: expected a file in a folder that exists, got nowhere/x.json"
        in done.stderr
    )
