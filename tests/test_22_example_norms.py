"""GroupNorm, LayerNorm and InstanceNorm2d: passes, planted errors, arguments, MAML."""

import copy
import pickle

import numpy as np
import pytest
from example_norms import CASES, KINDS, NETS

import refmaml as rm
from refmaml import kernels
from refmaml.oracles import cases
from refmaml.oracles.layer_cases import cases_of
from refmaml.oracles.layer_checks import layer_checks
from refmaml.oracles.method_checks import truth_by_steps
from refmaml.oracles.tolerance import relative_error

K = kernels.reference()


@pytest.mark.parametrize("shared", [False, True], ids=["own parameters", "shared"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_pass_agrees_with_loops_and_the_complex_step(case, shared):
    checks = layer_checks(case, K, shared=shared)
    # Rounding of some hundred operations.
    assert all(c.passed and c.error < 1e-13 for c in checks), [str(c) for c in checks]
    assert {c.oracle for c in checks} >= {"loops", "complex step"}


# ---- planted errors ------------------------------------------------------------------


def group_mean(a, s):
    """<a> over each group, as (T, N, C, 1)."""
    T, N, G = s.shape
    means = a.reshape(T, N, G, -1).mean(axis=3)
    return means.repeat(a.shape[2] // G, axis=2)[..., None]


def per_channel(s, a):
    return s.repeat(a.shape[2] // s.shape[2], axis=2)[..., None]


def unbiased_variance(y, xh, s, x, gamma, beta, eps):
    K.group_norm_forward(y, xh, s, x, gamma, beta, eps)
    M = x.shape[2] * x.shape[3] // s.shape[2]
    s[...] = 1 / np.sqrt((1 / s**2 - eps) * M / (M - 1) + eps)
    xh[...] = per_channel(s, x) * (x - group_mean(x, s))
    y[...] = gamma[:, None] * xh + beta[:, None]


def eps_outside_the_root(y, xh, s, x, gamma, beta, eps):
    K.group_norm_forward(y, xh, s, x, gamma, beta, eps)
    right = s.copy()
    s[...] = 1 / (np.sqrt(1 / s**2 - eps) + eps)
    xh *= per_channel(s / right, x)
    y[...] = gamma[:, None] * xh + beta[:, None]


def statistics_of_the_batch(y, xh, s, x, gamma, beta, eps):
    """The mean over all examples of a task, as in batch-norm."""
    K.group_norm_forward(y, xh, s, x, gamma, beta, eps)
    xh[...] = per_channel(s, x) * (x - group_mean(x, s).mean(axis=1, keepdims=True))
    y[...] = gamma[:, None] * xh + beta[:, None]


def statistics_taken_as_constants(dx, dgamma, dbeta, dy, xh, s, gamma):
    K.group_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma)
    dx[...] = per_channel(s, dy) * gamma[:, None] * dy


def no_projection(dx, dgamma, dbeta, dy, xh, s, gamma):
    K.group_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma)
    dxh = gamma[:, None] * dy
    dx[...] = per_channel(s, dy) * (dxh - group_mean(dxh, s))


def gamma_outside_the_means(dx, dgamma, dbeta, dy, xh, s, gamma):
    """gamma (dy - <dy> - ...): right where a group is one channel, as in batch-norm."""
    K.group_norm_backward(dx, dgamma, dbeta, dy, xh, s, gamma)
    inner = dy - group_mean(dy, s) - xh * group_mean(dy * xh, s)
    dx[...] = per_channel(s, dy) * gamma[:, None] * inner


def no_slope(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta):
    K.group_norm_r_forward(ry, rxh, rs, rx, xh, s, gamma, rgamma, rbeta)
    rxh[...] = per_channel(s, rx) * (rx - group_mean(rx, s))
    ry[...] = rgamma[:, None] * xh + gamma[:, None] * rxh + rbeta[:, None]


def no_rs(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    K.group_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, 0 * rs, gamma, rgamma)


def no_tangent_of_the_slope(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    K.group_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma)
    rdx += per_channel(s, dy) * xh * group_mean(gamma[:, None] * dy * rxh, s)


def no_dy_rxh_in_rdgamma(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma):
    K.group_norm_r_backward(rdx, rdgamma, rdbeta, dy, rdy, xh, s, rxh, rs, gamma, rgamma)
    K.group_norm_backward(rdx.copy(), rdgamma, rdbeta, rdy, xh, s, gamma)


ERRORS = {
    "unbiased variance": {"group_norm_forward": unbiased_variance},
    "eps outside the root": {"group_norm_forward": eps_outside_the_root},
    "statistics of the batch": {"group_norm_forward": statistics_of_the_batch},
    "statistics taken as constants": {"group_norm_backward": statistics_taken_as_constants},
    "no projection along xh": {"group_norm_backward": no_projection},
    "no slope in rxh": {"group_norm_r_forward": no_slope},
    "rs dropped": {"group_norm_r_backward": no_rs},
    "<dxh rxh> dropped": {"group_norm_r_backward": no_tangent_of_the_slope},
    "dy rxh dropped in rdgamma": {"group_norm_r_backward": no_dy_rxh_in_rdgamma},
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", KINDS)
def test_an_error_planted_in_a_kernel_is_caught(kind, error):
    planted = K.replace("planted", **ERRORS[error])
    found = [any(not c.passed for c in layer_checks(case, planted)) for case in cases_of(kind)]
    # A layer without parameters hides an error in a parameter's gradient.
    assert any(found) if "rdgamma" in error else all(found)


@pytest.mark.parametrize("kind", [rm.GroupNorm, rm.LayerNorm])
def test_gamma_outside_the_means_is_caught_where_a_group_has_several(kind):
    planted = K.replace("planted", group_norm_backward=gamma_outside_the_means)
    assert any(not c.passed for case in cases_of(kind) for c in layer_checks(case, planted))


# ---- what the layers are -------------------------------------------------------------


def forward(layer, x, w=None):
    return layer.forward(K, w or {}, x)[0]


def test_the_three_are_one_operation_with_other_groups():
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 4, 3))
    instance = forward(rm.InstanceNorm2d(6), x)
    assert np.array_equal(instance, forward(rm.GroupNorm(6, 6, affine=False), x))
    assert relative_error(instance, forward(rm.LayerNorm((4, 3), 1e-5, False), x)) < 1e-15
    layer = forward(rm.LayerNorm((6, 4, 3), elementwise_affine=False), x)
    assert relative_error(layer, forward(rm.GroupNorm(1, 6, affine=False), x)) < 1e-15
    alone = forward(rm.BatchNorm2d(6, gamma=False, beta=False), x[:, :1])
    assert relative_error(instance[:, :1], alone) < 1e-15


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_example_does_not_depend_on_the_others_and_dtypes_stay(case):
    for dtype in (np.float32, np.float64):
        w, x = cases.layer_inputs(case, np.random.default_rng(0), dtype)
        y = forward(case.layer, x, w)
        assert y.dtype == dtype and y.shape == x.shape
        # NumPy adds the numbers of an example in the same order, with others or alone.
        assert np.array_equal(y[:, 1:2], forward(case.layer, x[:, 1:2], w))


def test_parameters_start_as_the_identity_and_have_the_shapes_of_pytorch():
    for case in CASES:
        start = case.layer.init(np.random.default_rng(0))
        assert {n: a.shape for n, a in start.items()} == case.layer.shapes()
        assert all((a == (name == "weight")).all() for name, a in start.items())
    assert rm.GroupNorm(2, 6).shapes() == {"weight": (6,), "bias": (6,)}
    assert rm.LayerNorm((3, 2)).shapes() == {"weight": (3, 2), "bias": (3, 2)}
    assert rm.LayerNorm(3, bias=False).shapes() == {"weight": (3,)}
    assert rm.InstanceNorm2d(3).shapes() == {} == rm.LayerNorm(3, 1e-5, False).shapes()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: rm.GroupNorm(4, 6), "num_groups: expected a divisor of num_channels = 6, got 4"),
        (lambda: rm.GroupNorm(0, 6), "num_groups: expected an integer >= 1, got 0"),
        (lambda: rm.GroupNorm(2, 6.0), "num_channels: expected an integer >= 1, got 6.0"),
        (lambda: rm.GroupNorm(2, 6, eps=0), "eps: expected a finite number > 0"),
        (lambda: rm.GroupNorm(2, 6, affine=1), "affine: expected True or False, got 1"),
        (lambda: rm.LayerNorm(()), "normalized_shape: expected an integer >= 1 or a tuple of them"),
        (lambda: rm.LayerNorm((3, 0)), "normalized_shape: expected an integer >= 1 or a tuple"),
        (lambda: rm.LayerNorm("3"), "normalized_shape: expected an integer >= 1 or a tuple"),
        (lambda: rm.LayerNorm(3, bias=None), "bias: expected True or False, got None"),
        (lambda: rm.LayerNorm(3, eps=-1e-5), "eps: expected a finite number > 0"),
        (lambda: rm.LayerNorm(3, elementwise_affine="no"), "elementwise_affine: expected True or"),
        (lambda: rm.InstanceNorm2d(True), "num_features: expected an integer >= 1, got True"),
        # PyTorch's third argument is the momentum of running statistics.
        (lambda: rm.InstanceNorm2d(3, 1e-5, 0.1), "affine: expected True or False, got 0.1"),
        (
            lambda: rm.GroupNorm(2, 6).output_shape((4, 2, 2)),
            "input of GroupNorm: expected shape (6, H, W) or (6,), got shape (4, 2, 2)",
        ),
        (
            lambda: rm.LayerNorm((2, 3)).output_shape((3,)),
            "input of LayerNorm: expected a shape that ends in (2, 3), got shape (3,)",
        ),
        (
            lambda: rm.InstanceNorm2d(3).output_shape((3,)),
            "input of InstanceNorm2d: expected images of shape (3, H, W), got shape (3,)",
        ),
        (
            lambda: rm.InstanceNorm2d(3).output_shape((3, 1, 1)),
            "input of InstanceNorm2d: expected more than one pixel, got shape (3, 1, 1)",
        ),
    ],
)
def test_bad_arguments_are_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_layer_can_be_copied_and_pickled_and_takes_numpys_numbers(case):
    layer = case.layer
    assert copy.deepcopy(layer) == pickle.loads(pickle.dumps(layer)) == layer
    numbers = rm.LayerNorm([np.int64(3), np.int32(2)], np.float64(1e-3))
    assert repr(numbers) == repr(rm.LayerNorm((3, 2), 1e-3))


# ---- nets ----------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_gradient_of_maml_agrees_with_the_complex_step(net):
    rng = np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    for frozen in ((), ("GroupNorm",) if net is NETS["group"] else ()):
        method = rm.MAML(0.1, 2, frozen=frozen)
        exact = truth_by_steps(method, net, theta, batch)
        assert relative_error(method.meta_gradient(net, theta, batch).grad, exact) < 1e-12
