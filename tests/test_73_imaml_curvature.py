"""benchmarks/imaml_curvature.py: it sees a curvature that is known, and it resumes."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import REFERENCE, configuration

pytestmark = pytest.mark.slow

TINY = ["--data", "glyphs", "--channels", "2", "--n-way", "3", "--inner-steps", "4", *REFERENCE]


@pytest.fixture
def curvature(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import imaml_curvature

    settings = {
        "paper": ["--method", "imaml", "--inner-lr", "1e30"],  # overflows at once
        "released": ["--method", "imaml-released"],
        "works": ["--method", "imaml", "--inner-solver", "controlled_descent"],
    }
    table = {name: (name, configuration(*TINY, *given)) for name, given in settings.items()}
    monkeypatch.setattr(imaml_curvature, "SETTINGS", table)
    monkeypatch.setattr(imaml_curvature, "SAME", {"tasks": 2, "k_query": 2, "kernels": "reference"})
    monkeypatch.setattr(imaml_curvature, "EVERY", 2)
    monkeypatch.setattr(imaml_curvature, "PROBED", 2)
    return imaml_curvature


def run(curvature, steps):
    places = ["--data-root", ".", "--runs", "runs", "--out", "c.json", "--picture", "c.png"]
    curvature.main([*places, "--steps", str(steps)])
    return json.loads(Path("c.json").read_text())["runs"]


def test_the_settings_take_turns_and_the_same_command_continues(curvature):
    first = run(curvature, 2)
    assert {name: found["steps"] for name, found in first.items()} == {
        "paper": 0,
        "released": 2,
        "works": 2,
    }
    assert (
        "expected finite numbers" in first["paper"]["diverged"] and not first["works"]["diverged"]
    )
    both = run(curvature, 4)
    for name in ("released", "works"):
        probes = both[name]["probes"]
        assert [p["step"] for p in probes] == [0, 2, 4] and probes[:2] == first[name]["probes"]
        assert both[name]["curve"]["up_to_step"] == [2, 4]
        assert len(both[name]["curve"]["inner_residual_p95"]) == 2
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")


def test_the_eigenvalue_is_that_of_the_dense_hessian(curvature):
    from refmaml.oracles import dense

    case = curvature.Run("works", Path("runs"), {}, {"data_root": "."})
    theta = case.net.init(1, np.float64)
    x, y = (a[1:2].astype(a.dtype) for a in (case.batch.x_support, case.batch.y_support))
    exact = np.linalg.eigvalsh(dense.hessian(case.net, theta, x.astype(float), y))[-1]
    assert abs(case.eigenvalue(theta, 1) - exact) <= 2 * curvature.ACCURACY * exact
