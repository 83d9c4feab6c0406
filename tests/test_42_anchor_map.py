"""A scalar function as a model, and iMAML's map theta*(theta_0) with its slope."""

import numpy as np
import pytest
from scalar_functions import (
    WAVY_CURVATURE,
    WELLS_CURVATURE,
    d_wavy,
    d_wells,
    dd_wavy,
    dd_wells,
    scalar_wavy,
    scalar_wells,
    solver,
    wavy,
    wells,
)

import refmaml as rm
from refmaml.oracles.tolerance import relative_error, tolerance

STEP = 1e-30  # of the complex step
NO_SHIFT, NO_TARGET = np.zeros((1, 1)), np.zeros((1, 1))
CASES = {
    "wavy": (scalar_wavy, WAVY_CURVATURE, (wavy, d_wavy, dd_wavy)),
    "wells": (scalar_wells, WELLS_CURVATURE, (wells, d_wells, dd_wells)),
}


def problem(name, regularization=8.0):
    make, curvature, _ = CASES[name]
    return make(), solver(regularization, curvature)


@pytest.mark.parametrize("name", CASES)
def test_the_derivatives_of_the_functions_are_those_of_the_complex_step(name):
    w, x = np.linspace(-3, 3, 61), np.zeros((61, 1))
    f, df, ddf = CASES[name][2]
    for function, derivative in ((f, df), (df, ddf)):
        by_step = function(w + 1j * STEP, x).imag / STEP
        assert relative_error(derivative(w, x), by_step) <= tolerance(float, 8)


def test_the_meta_gradient_of_a_scalar_function_is_that_of_the_complex_step():
    net, x, y = scalar_wavy(), np.array([[0.3], [1.0]]), np.zeros((2, 1))
    theta, batch = np.array([0.4]), rm.Batch(x, y, x[::-1].copy(), y)
    for method in (rm.MAML(0.02, 3), rm.MetaSGD(0.02, 3), rm.MAMLPlusPlus(0.02, 3)):
        meta = method.init(net, theta)
        grad = method.meta_gradient(net, meta, batch).grad[0]
        phi = method.adapt(net, meta + 1j * STEP * (np.arange(len(meta)) == 0), x, y)
        if not isinstance(method, rm.MAMLPlusPlus):  # whose M has a loss after each step
            by_step = net.loss(phi, batch.x_query, y).mean().imag / STEP
            assert abs(grad - by_step) <= tolerance(float, 3 * 8) * abs(by_step)


@pytest.mark.parametrize("name", CASES)
def test_theta_star_is_imaml_s_own_solution_for_each_anchor(name):
    net, method = problem(name)
    anchors = np.linspace(-3, 3, 7)
    found = rm.anchor_map(net, anchors, NO_SHIFT, NO_TARGET, method)
    batch = rm.Batch(NO_SHIFT, NO_TARGET, NO_SHIFT, NO_TARGET)
    for anchor, phi, slope in zip(anchors, found.phi, found.slope, strict=True):
        theta = np.array([anchor])
        assert method.adapt(net, theta, NO_SHIFT, NO_TARGET)[0, 0] == phi
        query = net.gradient(np.array([[phi]]), NO_SHIFT, NO_TARGET)[0, 0]
        grad = method.meta_gradient(net, theta, batch).grad[0]  # by conjugate gradients
        assert abs(grad - slope * query) <= tolerance(float, 8) * abs(query)


def slopes(regularization):
    """The anchor map, and its slopes by differences, at anchors away from jumps."""
    net, method = problem("wavy", regularization)
    anchors, h = np.linspace(-3, 3, 241), 1e-5
    at = [rm.anchor_map(net, anchors + d, NO_SHIFT, NO_TARGET, method) for d in (0, h, -h)]
    differences = (at[1].phi - at[2].phi) / (2 * h)
    smooth = at[0].slope < 2  # near a jump the third derivative of theta* has no bound
    return at[0], differences, smooth & (abs(at[1].phi - at[2].phi) < 0.1)


@pytest.mark.parametrize("regularization", [4.0, 8.0, 25.0])
def test_the_slope_is_that_of_differences_between_the_jumps(regularization):
    found, differences, smooth = slopes(regularization)
    assert smooth.sum() > 200
    # Rounding of theta* over 2h, and h^2 times the third derivative, each below 1e-6.
    assert abs(found.slope - differences)[smooth].max() <= 1e-6


def test_another_factor_in_the_slope_is_found():
    found, differences, smooth = slopes(8.0)
    without_half = 1 / (1 + (1 / found.slope - 1) / 2)  # for a penalty without its 1/2
    assert abs(without_half - differences)[smooth].max() > 0.1


def test_a_sharp_minimum_is_a_flat_stair():
    net, method = problem("wells")
    sharp, wide = rm.anchor_map(net, np.array([1.2, -1.2]), NO_SHIFT, NO_TARGET, method).slope
    assert sharp < 0.35 < 0.75 < wide


@pytest.mark.parametrize(
    "change,named",
    [
        ({"net": rm.Quadratic(2)}, "net"),
        ({"anchors": np.zeros((2, 1))}, "anchors"),
        ({"x": np.zeros((2, 1))}, "x"),
        ({"method": rm.MAML(0.1)}, "method"),
        ({"method": rm.IMAML(2.0, solver="newton_cg")}, "method"),
    ],
)
def test_a_bad_argument_of_the_anchor_map_is_named(change, named):
    net, method = problem("wavy")
    arguments = dict(net=net, anchors=np.zeros(2), x=NO_SHIFT, y=NO_TARGET, method=method)
    with pytest.raises(rm.ArgumentError, match=f"^{named}: expected "):
        rm.anchor_map(**{**arguments, **change})


def test_bad_functions_are_named():
    with pytest.raises(rm.ArgumentError, match="^df: expected a function"):
        rm.ScalarFunction(wavy, 3, dd_wavy)
    net = rm.ScalarFunction(lambda w, x: w[:1], d_wavy, dd_wavy)
    with pytest.raises(rm.ArgumentError, match=r"^f: expected a result of shape \(3,\), got"):
        net.loss(np.zeros((1, 1)), np.zeros((3, 1)), np.zeros((3, 1)))
    with pytest.raises(rm.ArgumentError, match="^patterns: expected"):
        net.mask(("0.weight",))
