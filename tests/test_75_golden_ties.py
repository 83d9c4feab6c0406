"""Golden vectors with ties: there are some, they matter, and only in the first task."""

import json

import numpy as np
import pytest
from golden_cases import KNOWN, case, load

from refmaml.cli import main
from refmaml.golden import check
from refmaml.golden.problems import problems
from refmaml.golden.ties import RULE, TIED
from refmaml.oracles.tolerance import relative_error

NET = KNOWN["ties"].net


def ties_in(y):
    """For each task: how many windows of y (T, N, C, 4, 6) have two largest values."""
    T, N, C, H, W = y.shape
    windows = y.reshape(T, N, C, H // 2, 2, W // 2, 2).swapaxes(4, 5).reshape(T, -1, 4)
    largest = windows.max(axis=-1, keepdims=True)
    return ((windows == largest).sum(axis=-1) > 1).sum(axis=-1, where=largest[..., 0] > 0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_only_the_first_task_has_ties_in_both_precisions(golden, dtype):
    a = load(golden, "ties")
    views = NET.parameters.views(a["theta"][None].astype(dtype))
    y, _ = NET.layers[0].forward(NET.kernels, views[0], a["x_support"].astype(dtype))
    relu, _ = NET.layers[1].forward(NET.kernels, views[1], y)
    assert ties_in(relu).tolist() == [2 * 5, 0, 0]
    assert (y[:TIED] == 0).sum() == 5 and not (y[TIED:] == 0).any()


def mirrored(theta, x):
    """The same function of mirrored images: its first place in a window is the last of
    the images as they are.
    """
    theta = theta.copy()
    views = NET.parameters.views(theta)
    for w in (views[0]["weight"], views[4]["weight"].reshape(1, 3, 2, 2, 3)):
        w[:] = w[..., ::-1, ::-1].copy()
    return theta[0], x[..., ::-1, ::-1]


def test_another_convention_changes_the_first_task_and_no_other(golden):
    """The gradient of mirrored images under the same rule is that of the last place."""
    net, method, batch, a, limit = case(golden, "ties", "maml-1")
    x_support, x_query = (mirrored(a["meta"][None], x)[1] for x in (batch.x_support, batch.x_query))
    theta, _ = mirrored(a["meta"][None], batch.x_support)
    for t in range(len(batch)):
        one = slice(t, t + 1)
        task = type(batch)(
            x_support[one].copy(), batch.y_support[one], x_query[one].copy(), batch.y_query[one]
        )
        grad = method.meta_gradient(net, theta, task).grad
        back, _ = mirrored(grad[None], x_query)
        error = relative_error(back, a["lam"][0, t])
        assert error > 1e-3 if t < TIED else error <= limit


def test_a_relu_with_derivative_1_at_0_changes_the_first_task_and_no_other(golden):
    """Where the convolution's output is 0, its adjoint is 0, though dy.1 is not."""
    a = load(golden, "ties")
    at_zero = a["y.0"] == 0
    assert (a["dy.0"][at_zero] == 0).all() and (a["rdy.0"][at_zero] == 0).all()
    at_most = np.abs(a["dy.1"][at_zero]).max()
    assert at_most > 1e-3 and at_zero[:TIED].any() and not at_zero[TIED:].any()


def test_the_manifest_states_the_rule(golden):
    problem = json.loads((golden / "manifest.json").read_text())["problems"]["ties"]
    assert problem["ties"] == RULE and "first in row order" in RULE


# ---- the version before --------------------------------------------------------------


@pytest.fixture(scope="module")
def version_1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version_1") / "golden"
    check.write(folder, {"command": "test"}, schema=1)
    return folder


def test_version_1_is_still_checked(version_1, capsys):
    assert json.loads((version_1 / "manifest.json").read_text())["schema"] == "refmaml-golden-1"
    assert set(problems(1)) == {"quadratic", "mlp", "two-layer-linear", "conv", "strided", "film"}
    assert main(["golden", "--check", str(version_1)]) == 0
    assert "every sha256 as stated" in capsys.readouterr().out


def test_version_1_under_the_name_of_version_2_lacks_files(version_1, capsys):
    path = version_1 / "manifest.json"
    before = path.read_text()
    path.write_text(before.replace("refmaml-golden-1", "refmaml-golden-2"))
    assert main(["golden", "--check", str(version_1)]) == 2
    assert "expected this version's methods of mlp" in capsys.readouterr().err
    path.write_text(before)


LATER = ("rule", "anchor", "inner_batch", "order_seed", "per_step_norm")


def without_later_fields(folder, **other):
    """Write the manifest as a version without these fields of methods did."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for problem in manifest["problems"].values():
        for method in problem["methods"].values():
            if method["method"] != "Reptile":  # it had inner_batch and order_seed before
                given = method["fields"]
                method["fields"] = {n: v for n, v in given.items() if n not in LATER} | other
    path.write_text(json.dumps(manifest))


def test_a_folder_from_before_a_field_existed_passes_and_another_value_does_not(copy, capsys):
    without_later_fields(copy)
    assert main(["golden", "--check", str(copy)]) == 0
    capsys.readouterr()
    without_later_fields(copy, anchor=0.5)
    assert main(["golden", "--check", str(copy)]) == 2
    assert "expected this version's methods" in capsys.readouterr().err
