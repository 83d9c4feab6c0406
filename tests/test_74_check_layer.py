"""rm.check_layer: one hand-written layer, its mistakes by name, conventions as such."""

import json

import numpy as np
import pytest
from hand_written_layers import batch_norm, by_own_code, max_pool

import refmaml as rm
from refmaml import kernels

# ---- softmax, linear, activations ----------------------------------------------------


def softmax(x, axis=1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize(
    ("like", "backward", "words"),
    [
        (rm.Softmax(), lambda x, p, dy: softmax(x) * (1 - softmax(x)) * dy, "the diagonal alone"),
        (rm.Softmax(), lambda x, p, dy: softmax(x) * dy, "the term p sum p dy is missing"),
        (
            rm.Softmax(),
            lambda x, p, dy: softmax(x, 0) * (dy - (softmax(x, 0) * dy).sum(0)),
            "the softmax is over axis 0 of x, not axis 1",
        ),
        (rm.LogSoftmax(), lambda x, p, dy: dy, "the term p sum dy is missing"),
        (rm.Tanh(), lambda x, p, dy: (1 - x**2) * dy, "with the input for the output"),
        (rm.Sigmoid(), lambda x, p, dy: x * (1 - x) * dy, "with the input for the output"),
        (rm.SiLU(), lambda x, p, dy: dy / (1 + np.exp(-x)), "the sigmoid is taken as a constant"),
        (
            rm.Linear(4, 3),
            lambda x, p, dy: (dy @ p["weight"], dy.T @ x / len(x), dy.sum(0)),
            "dweight: 1/N times",
        ),
        (rm.Linear(4, 3), lambda x, p, dy: (dy @ p["weight"], x.T @ dy), "transposed"),
    ],
)
def test_a_fault_of_another_layer_has_a_name(like, backward, words):
    report = rm.check_layer(backward, like)
    assert report.verdict == "wrong" and words in report.diagnosis, report


def gelu_of(kind):
    layer = rm.GELU(kind)
    return lambda x, p, dy: layer.backward(kernels.reference(), {}, {}, x[None], dy[None])[0]


def test_the_two_forms_of_gelu_are_told_apart():
    assert rm.check_layer(gelu_of("tanh"), rm.GELU("tanh")).ok
    report = rm.check_layer(gelu_of("tanh"), rm.GELU())
    assert "the other form, approximate='tanh'" in report.diagnosis


# ---- every layer of the project, by its own code -------------------------------------


ALL = ("forward", "r_forward", "r_backward")
LAYERS = [
    rm.Conv2d, rm.Linear, rm.BatchNorm2d, rm.ReLU, rm.LeakyReLU, rm.Tanh, rm.Softplus,
    rm.MaxPool2d, rm.AvgPool2d, rm.SpatialMean, rm.Flatten, rm.GroupNorm, rm.LayerNorm,
    rm.InstanceNorm2d, rm.Sigmoid, rm.SiLU, rm.GELU, rm.ELU, rm.Softmax, rm.LogSoftmax,
    rm.Dropout, rm.EvalBatchNorm2d(2, (0.1, 0.2), (1.0, 2.0)), rm.Conv2d(4, 6, 3, groups=2),
    rm.Conv2d(2, 3, (2, 3), dilation=(2, 1), padding="same"),
    rm.Residual([rm.Tanh()]), rm.FiLM(3, 2), rm.Context(2), rm.CosineLinear(5, 3),
    rm.DropBlock2d(0.3, block_size=2),
]  # fmt: skip


@pytest.mark.parametrize("like", LAYERS, ids=lambda like: getattr(like, "__name__", str(like)[:40]))
def test_every_layer_is_right_in_all_four_passes_by_its_own_code(like):
    shape = (4,) if isinstance(like, rm.Context) else None
    report = rm.check_layer(by_own_code("backward"), like, input_shape=shape,
                            **{n: by_own_code(n) for n in ALL})  # fmt: skip
    assert report.ok, report
    wrong = rm.check_layer(by_own_code("backward", lambda a: 1.1 * a + 0.01), like,
                           input_shape=shape)  # fmt: skip
    assert wrong.verdict == "wrong"


def test_the_passes_along_a_tangent_have_names_too():
    right = {n: by_own_code(n) for n in ALL}

    def of_rdy_alone(x, params, dy, rx, rparams, rdy, layer):
        return by_own_code("backward")(x, params, rdy, layer)

    report = rm.check_layer(
        by_own_code("backward"), rm.BatchNorm2d, **{**right, "r_backward": of_rdy_alone}
    )
    assert "the tangents of x and params are left out" in report.diagnosis

    def half(x, params, rx, rparams, layer):
        return by_own_code("r_forward")(x, params, rx, rparams, layer) / 2

    report = rm.check_layer(by_own_code("backward"), rm.Tanh, **{**right, "r_forward": half})
    assert "ry: 1/2 times the right one" in report.diagnosis


def test_forward_may_hand_saved_values_to_backward():
    def forward(x, params):
        y = np.tanh(x)
        return y, y

    assert rm.check_layer(lambda y, p, dy: (1 - y**2) * dy, rm.Tanh(), forward=forward).ok
    report = rm.check_layer(lambda y, p, dy: (1 - y) * dy, rm.Tanh(), forward=forward)
    assert "1 - y is used" in report.diagnosis
    wrong = rm.check_layer(lambda x, p, dy: (1 - np.tanh(x) ** 2) * dy, rm.Tanh(),
                           forward=lambda x, p: -np.tanh(x))  # fmt: skip
    assert "y: the sign is wrong" in wrong.diagnosis


def test_float32_has_its_own_tolerance():
    def backward(x, params, dy):
        assert x.dtype == np.float32
        return (1 - np.tanh(x) ** 2) * dy

    assert rm.check_layer(backward, rm.Tanh(), precision="float32").ok
    assert rm.check_layer(max_pool("last"), rm.MaxPool2d(2), precision="float32").ok


def test_a_report_of_a_layer_as_json():
    record = json.loads(rm.check_layer(batch_norm("sign"), rm.BatchNorm2d).to_json())
    assert record["check"] == "layer" and record["rows"][0]["factor"] == pytest.approx(-1)


TANH = rm.Tanh()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, TANH), "backward: expected a function backward(x, params, dy)"),
        ((lambda x: x, TANH), "backward: expected a function backward(x, params, dy)"),
        ((lambda x, p, dy: dy, 3), "like: expected a layer of refmaml"),
        ((lambda x, p, dy: dy, rm.CrossEntropy()), "like: expected a layer of refmaml"),
        ((lambda x, p, dy: dy, int), "like: expected a layer of refmaml"),
        ((lambda x, p, dy: dy, rm.FiLM), "like: expected an instance, such as rm.FiLM(...)"),
        ((lambda x, p, dy: dy, rm.Conv2d), "like: expected an instance, such as rm.Conv2d(2, 3"),
        ((lambda x, p, dy: None, TANH), "backward: expected a dict with x"),
        ((lambda x, p, dy: {"y": dy}, TANH), "backward: expected the names x, got 'y'"),
        ((lambda x, p, dy: {"x": None}, TANH), "backward: expected some of x, got none"),
        ((lambda x, p, dy: dy * np.nan, TANH), "backward['x']: expected finite numbers"),
        (
            (lambda x, p, dy: 1 / 0, TANH),
            "backward: expected adjoints on input 3 x 4 x 6, got Zero",
        ),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words):
    with pytest.raises(rm.ArgumentError) as error:
        rm.check_layer(*arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_shape_that_the_layer_cannot_take_is_one_line():
    with pytest.raises(rm.ArgumentError, match="input of Linear"):
        rm.check_layer(lambda x, p, dy: dy, rm.Linear(4, 3), input_shape=(5,))
