"""`refmaml check`: exit statuses, files, one-line errors; the fixtures of pytest."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from refmaml.cli import main
from refmaml.cli.user_files import data_of

ROOT = Path(__file__).parent.parent

CODE = """
import numpy as np

params = {"w": np.array([1.0, 2.0, 3.0])}
batch = np.ones((3, 5))
A = np.array([[4.0, 1.0], [1.0, 3.0]])
b, values = np.array([1.0, 2.0]), {"lam": 0.7}
other = {"w": np.array([0.0, 0.0])}

def x():
    return np.linalg.solve(A, b)

def damped():
    return np.linalg.solve(A + 0.5 * np.eye(2), b)

def cube(params, batch):
    return {"w": 3 * params["w"] ** 2}, (params["w"] ** 3).sum()

def minus(params, batch):
    g, loss = cube(params, batch)
    return {"w": -g["w"]}, loss

def kink(params):
    return {"w": np.sign(params["w"])}, np.abs(params["w"]).sum()

def raises(params):
    raise RuntimeError("no")

def product(v):
    return A @ v

def twice(v):
    return 2 * A @ v

def gradient(w):
    return A @ w

def tanh(x, params, dy):
    return (1 - np.tanh(x) ** 2) * dy

def confused(x, params, dy):
    return (1 - x**2) * dy

def rate(v):
    return {"lam": 3 * v["lam"] ** 2}, v["lam"] ** 3

def log_rate(v):
    return {"lam": 3 * v["lam"] ** 3}, v["lam"] ** 3

number = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(CODE)
    return path


def check(file, part, name, *options):
    return main(["check", part, f"{file}:{name}", *options])


@pytest.mark.parametrize(
    ("part", "name", "options", "status", "words"),
    [
        ("gradient", "cube", [], 0, "RIGHT: the gradient is the derivative"),
        ("gradient", "minus", [], 1, "WRONG: the gradient is minus the derivative"),
        ("gradient", "kink", ["--params", "other"], 3, "INCONCLUSIVE: a kink"),
        ("hvp", "product", ["--params", "b", "--gradient", "gradient"], 0, "RIGHT"),
        ("hvp", "twice", ["--params", "b", "--gradient", "gradient"], 1, "WRONG: the product is 2"),
        ("layer", "tanh", ["--like", "Tanh()"], 0, "RIGHT: the layer is Tanh"),
        ("layer", "confused", ["--like", "Tanh"], 1, "WRONG: dx: 1 - x^2 is used"),
        ("solve", "product", [], 0, "RIGHT: x solves A x = b"),
        ("solve", "product", ["--x", "damped"], 1, "WRONG: x solves (A + d I) x = b"),
        ("solve", "product", ["--x", "damped", "--damping", "0.5"], 0, "RIGHT"),
        ("hypergradient", "rate", [], 0, "RIGHT"),
        ("hypergradient", "log_rate", [], 1, "WRONG: the derivative in lam is that in log(value)"),
    ],
)
def test_the_exit_status_is_the_verdict(file, capsys, part, name, options, status, words):
    assert check(file, part, name, *options) == status
    assert capsys.readouterr().out.startswith(words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gradient", "{}:raises"], "fn: expected a gradient and a loss, got RuntimeError: no"),
        (["gradient", "{}:number"], "'number', which is not one"),
        (["gradient", "{}:cube", "--params", "absent"], "--params: expected a name in"),
        (["gradient", "{}:cube", "--params", "a b"], "--params: expected NAME, or FILE.py:NAME"),
        (["gradient", "{}:cube", "--params", "damped", "--batch", "raises"], "--batch: expected"),
        (["gradient", "{}:cube", "--directions", "x"], "--directions: expected a number"),
        (["gradient", "{}:cube", "--tol", "-1"], "--tol: expected a finite number > 0"),
        (["gradient", "{}:cube", "--tol", "2"], "--tol: expected a number between 0 and 1"),
        (["gradient", "{}:cube", "--precision", "half"], "--precision: expected one of"),
        (["gradient", "{}:cube", "--json", "{}"], "--json: expected a file other than the"),
        (["hvp", "{}:product", "--params", "b", "--kind", "x"], "--kind: expected one of hessian"),
        (["hvp", "{}:product", "--params", "b", "--gradient", "no"], "--gradient: expected a name"),
        (["layer", "{}:tanh", "--like", "Tan"], "--like: expected one of Conv2d"),
        (["layer", "{}:tanh", "--like", "Linear(4"], "--like: expected a layer, such as"),
        (["layer", "{}:tanh", "--like", "Linear(f())"], "--like: expected a layer, such as"),
        (["layer", "{}:tanh", "--like", "Linear(4)"], "--like: expected a layer, such as"),
        (["layer", "{}:tanh", "--like", "Linear(0, 3)"], "in_features: expected an integer >= 1"),
        (["layer", "{}:tanh", "--like", "Tanh", "--input-shape", "a"], "--input-shape: expected"),
        (
            ["layer", "{}:tanh", "--like", "Tanh", "--framework", "x"],
            "--framework: expected one of",
        ),
        (["layer", "{}:tanh"], "--like"),
        (["unknown"], "PART"),
        (["gradient", "absent.py:f"], "absent.py, which does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_status_2(file, capsys, arguments, words):
    assert main(["check", *(word.format(file) for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_reports_are_written_to_files_and_the_last_line_repeats_the_check(file, capsys, tmp_path):
    paths = {name: tmp_path / f"report.{name}" for name in ("json", "markdown", "junit")}
    options = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    assert check(file, "solve", "product", *options, "--x", "damped", "--seed", "3") == 1
    again = capsys.readouterr().out.splitlines()[-1]
    assert again.startswith("  again: refmaml check solve ") and "--seed 3" in again
    assert json.loads(paths["json"].read_text())["about"]["again"] in again
    assert main(again.removeprefix("  again: refmaml ").split()) == 1
    assert paths["markdown"].read_text().startswith("### ❌ WRONG")
    assert int(ET.fromstring(paths["junit"].read_text()).get("failures")) >= 1


def test_names_in_another_file(file, tmp_path, capsys):
    (tmp_path / "data.py").write_text("import numpy as np\ndef here(): return {'w': np.ones(2)}\n")
    assert check(file, "gradient", "cube", "--params", f"{tmp_path}/data.py:here") == 0


TESTS = """
import numpy as np
import refmaml as rm
from mine import A, b, confused, cube, kink, log_rate, minus, other, params, product, rate, tanh

def test_gradient(refmaml_check_gradient):
    assert refmaml_check_gradient(cube, params, 0).ok

def test_minus(refmaml_check_gradient):
    refmaml_check_gradient(minus, params, 0)

def test_kink(refmaml_check_gradient):
    refmaml_check_gradient(kink, other)

def test_product(refmaml_check_hvp):
    assert refmaml_check_hvp(product, b, gradient=lambda w: A @ w).ok

def test_layer(refmaml_check_layer):
    assert refmaml_check_layer(tanh, rm.Tanh()).ok

def test_confused(refmaml_check_layer):
    refmaml_check_layer(confused, rm.Tanh())

def test_solve(refmaml_check_solve):
    assert refmaml_check_solve(product, b, np.linalg.solve(A, b)).ok

def test_rate(refmaml_check_hypergradient):
    assert refmaml_check_hypergradient(rate, {"lam": 0.7}).ok

def test_log_rate(refmaml_check_hypergradient):
    refmaml_check_hypergradient(log_rate, {"lam": 0.7})
"""


def test_the_fixtures_of_pytest_fail_skip_and_pass(file, tmp_path):
    (tmp_path / "test_mine.py").write_text(TESTS)
    plugin = ["-p", "refmaml.pytest_plugin", "-p", "no:cacheprovider"]
    out = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, "--refmaml-json", "all.json", "test_mine.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
    )
    assert "3 failed, 5 passed, 1 skipped" in out.stdout, out.stdout + out.stderr
    lines = out.stdout.splitlines()
    first = next(line for line in lines if line.startswith("gradient wrong: "))
    assert len(first) < 80 and "minus the derivative" in first and "Traceback" not in out.stdout
    records = json.loads((tmp_path / "all.json").read_text())
    assert {(r["check"], r["verdict"]) for r in records} >= {
        ("gradient", "wrong"),
        ("gradient", "inconclusive"),
        ("hvp", "right"),
        ("layer", "wrong"),
        ("solve", "right"),
        ("hypergradient", "wrong"),
    }


def test_data_that_can_be_called_is_not_called():
    class Module:
        def __call__(self):
            raise AssertionError("called")

    module = Module()
    assert data_of(module, "--params") is module
    assert data_of(lambda: 3, "--params") == 3
