"""Rungs 1 to 3: every pass of every layer and loss, and what layers refuse."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.oracles import cases
from refmaml.oracles.kernel_checks import layer_kernel_checks
from refmaml.oracles.kinks import layer_margin
from refmaml.oracles.layer_checks import layer_checks, loss_checks

K = kernels.reference()
# The README promises this for every pass in float64. The tolerance of the checks is
# smaller.
PROMISE = 1e-13
VARIANTS = [
    (case, shared)
    for case in cases.LAYERS
    for shared in ((False, True) if case.layer.shapes() else (False,))
]


def assert_all_pass(checks):
    bad = [
        f"{c.subject}: {c.quantity} against {c.oracle} is {c.error:.1e} off, allowed "
        f"{c.tolerance:.1e}"
        for c in checks
        if not c.passed
    ]
    assert not bad, "; ".join(bad)


@pytest.mark.parametrize("case,shared", VARIANTS, ids=lambda v: str(v))
def test_every_pass_agrees_with_loops_and_the_complex_step(case, shared):
    for seed in range(3):
        checks = layer_checks(case, K, seed, shared)
        assert_all_pass(checks)
        assert max(c.error for c in checks) < PROMISE
        assert {c.quantity for c in checks} >= {"y", "dx", "ry", "rdx"} | (
            {"dw", "rdw"} if case.layer.shapes() else set()
        )


@pytest.mark.parametrize("loss", cases.LOSSES, ids=cases.brief)
def test_every_pass_of_a_loss_agrees_with_loops_and_the_complex_step(loss):
    for seed in range(3):
        checks = loss_checks(loss, K, seed)
        assert_all_pass(checks)
        assert max(c.error for c in checks) < PROMISE


@pytest.mark.parametrize("case", cases.LAYERS, ids=str)
def test_every_pass_in_float32_agrees_with_float64(case):
    assert_all_pass(layer_kernel_checks(case, K, K, np.float32))


@pytest.mark.parametrize(
    "case",
    [c for c in cases.LAYERS if type(c.layer).__name__ in ("ReLU", "LeakyReLU", "MaxPool2d")],
    ids=str,
)
def test_inputs_of_layers_with_kinks_are_drawn_away_from_them(case):
    margins = [c.margin for c in layer_checks(case, K)]
    assert all(cases.LAYER_MARGIN < margin < 1 for margin in margins)


@pytest.mark.parametrize(
    "layer, x, dead, margin",
    [
        (rm.ReLU(), [[-4, 1], [2, 3]], False, 0.25),
        (rm.ReLU(), [[0, 1], [2, 3]], False, 0),
        (rm.ReLU(), [[0, 0], [0, 0]], False, 0),
        (rm.MaxPool2d(2), [[4, 1], [3, 2]], False, 0.25),
        (rm.MaxPool2d(2), [[0, 0], [0, 0]], False, 0),
        (rm.MaxPool2d(1), [[0, 0], [0, 0]], False, np.inf),
        (rm.MaxPool2d((1, 2)), [[4, 1], [0, 0]], True, 0.75),
        (rm.MaxPool2d(2), [[0, 0], [0, 0]], True, np.inf),
        (rm.Tanh(), [[0, 0], [0, 0]], False, np.inf),
    ],
)
def test_the_distance_from_a_kink_is_known_for_zeros_too(layer, x, dead, margin):
    assert layer_margin(layer, np.array(x, float)[None, None, None], dead) == margin


@pytest.mark.parametrize(
    "extent,stride,kernel", [(28, 2, 3), (7, 2, 3), (5, 1, 3), (6, 3, 2), (4, 1, 4)]
)
def test_same_padding_gives_ceil_of_h_over_s_outputs(extent, stride, kernel):
    layer = rm.Conv2d(1, 1, kernel, stride=stride, padding="same")
    assert layer.output_shape((1, extent, extent)) == (
        1,
        -(-extent // stride),
        -(-extent // stride),
    )


def test_same_padding_puts_the_odd_row_at_the_bottom_as_tensorflow_does():
    assert rm.Conv2d(1, 1, 3, stride=2, padding="same").geometry((28, 28))[2] == ((0, 1), (0, 1))
    assert rm.Conv2d(1, 1, 3, stride=2, padding="same").geometry((7, 7))[2] == ((1, 1), (1, 1))


REFUSED = [
    (lambda: rm.Conv2d(1, 2, 0), "kernel_size: expected an integer >= 1"),
    (
        lambda: rm.Conv2d(1, 2, 3, stride=(1, 2, 3)),
        "stride: expected an integer >= 1 or a pair of them, got (1, 2, 3)",
    ),
    (lambda: rm.Conv2d(1, 2, 3, padding=-1), "padding: expected an integer >= 0"),
    (
        lambda: rm.Conv2d(3, 2, 3).output_shape((1, 8, 8)),
        "input of Conv2d: expected images of shape (3, H, W), got shape (1, 8, 8)",
    ),
    (
        lambda: rm.Conv2d(1, 2, 5).output_shape((1, 3, 8)),
        "input of Conv2d: expected at least 5 rows and columns",
    ),
    (
        lambda: rm.Linear(4, 2).output_shape((5,)),
        "input of Linear: expected vectors of shape (4,), got shape (5,)",
    ),
    (
        lambda: rm.BatchNorm2d(3).output_shape((4, 2, 2)),
        "input of BatchNorm2d: expected shape (3, H, W) or (3,), got shape (4, 2, 2)",
    ),
    (lambda: rm.BatchNorm2d(3, eps=0), "eps: expected a finite number > 0"),
    (lambda: rm.MaxPool2d(0), "kernel_size: expected an integer >= 1"),
    (lambda: rm.MaxPool2d(3).output_shape((1, 2, 2)), "input of MaxPool2d"),
    (
        lambda: rm.SpatialMean().output_shape((4,)),
        "input of SpatialMean: expected images of shape (C, H, W), got shape (4,)",
    ),
    (
        lambda: rm.FiLM(3, 2).output_shape((4, 2, 2)),
        "input of FiLM: expected 3 channels, got shape (4, 2, 2)",
    ),
    (
        lambda: rm.CrossEntropy("average"),
        "reduction: expected one of mean, sum, sum/K, got 'average'",
    ),
    (lambda: rm.MSE(factor=0), "factor: expected a finite number > 0, got 0"),
]


@pytest.mark.parametrize("make,message", REFUSED, ids=[m for _, m in REFUSED])
def test_the_error_for_a_bad_argument_is_one_line_with_name_expected_and_got(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
