"""Batch-norm in evaluation mode, and a net that is put into it."""

import copy
import pickle

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.oracles import cases
from refmaml.oracles.layer_cases import cases_of
from refmaml.oracles.layer_checks import layer_checks

K = kernels.reference()
CASES = cases_of(rm.EvalBatchNorm2d)
STEP = 1e-30


def worst(layer, case):
    return max(c.error / c.tolerance for c in layer_checks(case._replace(layer=layer), K, 0, False))


def planted(name, change):
    """The first case's layer with one wrong pass."""

    def wrong(self, *args, **kwargs):
        return change(self, getattr(rm.EvalBatchNorm2d, name), *args, **kwargs)

    layer = CASES[0].layer
    return type("EvalBatchNorm2d", (rm.EvalBatchNorm2d,), {name: wrong})(
        layer.num_features, layer.running_mean, layer.running_var
    )


def without_eps(self, k, dtype):
    mean, s = rm.EvalBatchNorm2d.constants(self, k, dtype)
    return mean, s * np.sqrt(1 + self.eps / np.array(self.running_var)[:, None])


ERRORS = {
    "s without eps": ("constants", lambda self, right, k, dtype: without_eps(self, k, dtype)),
    "dx as if the statistics were the batch's": (
        "backward",
        lambda self, right, *a, **o: (lambda dx: dx - dx.mean(axis=1, keepdims=True))(
            right(self, *a, **o)
        ),
    ),
    "ry without rx": (
        "r_forward",
        lambda self, right, k, w, rw, saved, rx: right(
            self, k, w, rw, saved, None if rx is None else 0 * rx
        ),
    ),
    "ry without the tangent of gamma": (
        "r_forward",
        lambda self, right, k, w, rw, saved, rx: right(
            self, k, w, {**rw, "weight": 0 * rw["weight"]}, saved, rx
        ),
    ),
    "rdgamma without dy rxh": (
        "r_backward",
        lambda self, right, k, rdw, w, rw, saved, rsaved, dy, rdy, **o: right(
            self, k, rdw, w, rw, saved, rsaved._replace(xh=0 * rsaved.xh), dy, rdy, **o
        ),
    ),
    "dbeta twice": (
        "fill",
        lambda self, right, dw, dgamma, dbeta: right(self, dw, dgamma, 2 * dbeta),
    ),
}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_in_a_pass_is_found(error):
    name, change = ERRORS[error]
    assert worst(CASES[0].layer, CASES[0]) <= 1
    if error == "s without eps":  # eps is seen where it is not small
        case = CASES[1]
        layer = type("EvalBatchNorm2d", (rm.EvalBatchNorm2d,), {"constants": without_eps})(
            3, case.layer.running_mean, case.layer.running_var, eps=0.1, gamma=False
        )
        x = np.random.default_rng(0).standard_normal((1, 2, 3, 4, 2))
        y, _ = layer.forward(K, {"bias": np.zeros((1, 3))}, x)
        mean, var = (np.array(a)[:, None, None] for a in (layer.running_mean, layer.running_var))
        assert np.abs(y - (x - mean) / np.sqrt(var + 0.1)).max() > 1e-3
        return
    assert worst(planted(name, change), CASES[0]) > 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_output_is_the_formula_with_the_given_statistics(case):
    rng, layer = np.random.default_rng(0), case.layer
    x = rng.standard_normal((2, 3, *case.shape))
    w = {name: rng.standard_normal((2, *shape)) for name, shape in layer.shapes().items()}
    y, _ = layer.forward(K, w, x)
    for t, n, c in np.ndindex(2, 3, 3):
        want = (x[t, n, c] - layer.running_mean[c]) / np.sqrt(layer.running_var[c] + layer.eps)
        want = want * w["weight"][t, c] if layer.gamma else want
        want = want + w["bias"][t, c] if layer.beta else want
        assert np.abs(y[t, n, c] - want).max() <= 1e-14


def net():
    return rm.Sequential(
        [rm.Conv2d(1, 3, 3), rm.BatchNorm2d(3), rm.Tanh(), rm.Flatten(), rm.Linear(12, 2)],
        rm.CrossEntropy(), (1, 4, 4),
    )  # fmt: skip


def test_a_net_in_evaluation_mode_treats_each_example_alone():
    rng = np.random.default_rng(0)
    theta, x = net().init(0, float), rng.standard_normal((2, 5, 1, 4, 4))
    evaluated = rm.evaluation_mode(net(), theta, x)
    assert list(evaluated.shapes) == list(net().shapes)
    y = rng.integers(0, 2, (2, 5))
    together = evaluated.primal(theta[None], x, y).outputs
    alone = [evaluated.primal(theta[None], x[:, i : i + 1], y[:, i : i + 1]) for i in range(5)]
    apart = np.concatenate([p.outputs for p in alone], axis=1)
    assert np.abs(together - apart).max() <= 1e-14  # BLAS sums in another order


def test_a_net_in_evaluation_mode_has_no_dropout_and_keeps_its_names():
    layers = {"head": rm.Linear(3, 3), "norm": rm.BatchNorm2d(3), "drop": rm.Dropout(0.5)}
    given = rm.Sequential({**layers, "last": rm.Linear(3, 2)}, rm.CrossEntropy(), (3,))
    x = np.random.default_rng(0).standard_normal((2, 5, 3))
    evaluated = rm.evaluation_mode(given, given.init(0, float), x)
    assert evaluated.layers[2].p == 0 and list(evaluated.shapes) == list(given.shapes)


def test_the_statistics_are_those_of_all_values_with_the_unbiased_variance():
    rng = np.random.default_rng(1)
    theta, x = net().init(0, float), 3 + rng.standard_normal((2, 5, 1, 4, 4))
    layer = rm.evaluation_mode(net(), theta, x).layers[1]
    z, _ = (
        net()
        .layers[0]
        .forward(K, net().parameters.views(theta[None])[0], x.reshape(1, 10, 1, 4, 4))
    )
    assert np.allclose(layer.running_mean, z.mean(axis=(0, 1, 3, 4)), rtol=1e-14)
    assert np.allclose(layer.running_var, z.var(axis=(0, 1, 3, 4), ddof=1), rtol=1e-14)


def test_a_meta_gradient_is_the_complex_step():
    rng = np.random.default_rng(2)
    theta, x = net().init(0, float), rng.standard_normal((2, 4, 1, 4, 4))
    evaluated = rm.evaluation_mode(net(), theta, x)
    y = rng.integers(0, 2, (2, 4))
    batch, method = rm.Batch(x, y, x[:, ::-1].copy(), y[:, ::-1].copy()), rm.MAML(0.1, 3)
    v = rng.standard_normal(theta.shape)
    exact = method.meta_gradient(evaluated, theta + 1j * STEP * v, batch).loss.imag / STEP
    value = method.meta_gradient(evaluated, theta, batch).grad @ v
    assert abs(value - exact) <= 1e-12 * abs(exact)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_stays(dtype):
    x = np.ones((1, 2, 3, 2, 2), dtype)
    w = {"weight": np.ones((1, 3), dtype), "bias": np.ones((1, 3), dtype)}
    y, saved = CASES[0].layer.forward(K, w, x)
    dw = {name: np.empty((1, 3), dtype) for name in w}
    assert y.dtype == saved.xh.dtype == CASES[0].layer.backward(K, dw, w, saved, y).dtype == dtype


def test_copies_and_pickles_are_equal():
    layer = CASES[1].layer
    assert copy.deepcopy(layer) == pickle.loads(pickle.dumps(layer)) == layer
    assert layer == rm.EvalBatchNorm2d(
        3, np.array(layer.running_mean), np.array(layer.running_var), eps=0.1, gamma=False
    )


@pytest.mark.parametrize(
    "mean,var,argument",
    [
        ((0, 1), (1, 1, 1), "running_mean"),
        ((0, 1, np.nan), (1, 1, 1), "running_mean"),
        ((0, 1, 2), (1, 1), "running_var"),
        ((0, 1, 2), (1, -1, 1), "running_var"),
        (0, (1, 1, 1), "running_mean"),
    ],
)
def test_wrong_statistics_are_refused_in_one_line(mean, var, argument):
    with pytest.raises(rm.ArgumentError, match=f"{argument}: expected") as error:
        rm.EvalBatchNorm2d(3, mean, var)
    assert "\n" not in str(error.value)


def test_the_layer_is_on_the_ladder():
    assert [c.layer for c in cases.LAYERS if isinstance(c.layer, rm.EvalBatchNorm2d)] == [
        c.layer for c in CASES
    ]
