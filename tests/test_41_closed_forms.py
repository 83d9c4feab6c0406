"""Rung 5: quadratics, linear regression and the two-layer linear model."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import closed_forms
from refmaml.oracles.closed_form_checks import closed_form_checks
from refmaml.oracles.tolerance import relative_error, tolerance

PROMISE = 1e-12


@pytest.mark.parametrize("check", closed_form_checks(), ids=lambda c: f"{c.subject}: {c.quantity}")
def test_methods_agree_with_closed_forms(check):
    assert check.passed and check.error < PROMISE, check


def test_the_implicit_jacobian_in_one_dimension_is_one_over_one_plus_curvature_over_lambda():
    for curvature, strength in [(1.0, 1.0), (3.0, 2.0), (0.1, 5.0)]:
        # 1 / (1 + f''/lambda) and lambda / (f'' + lambda) differ by a few roundings.
        assert relative_error(
            closed_forms.imaml_jacobian(np.array([[curvature]]), strength),
            [[1 / (1 + curvature / strength)]],
        ) <= tolerance(float, 1)


def test_maml_with_a_tiny_step_size_and_imaml_with_a_huge_lambda_approach_erm():
    net, batch = rm.Quadratic(5), rm.Quadratics(5).sample(tasks=4, seed=0)
    theta = net.init(0)
    erm = rm.ERM().meta_gradient(net, theta, batch).grad
    for small in (1e-3, 1e-5):
        # Both differ from ERM by terms of order alpha (or 1 / lambda) times curvatures
        # up to 3.
        assert (
            relative_error(rm.MAML(small, 1).meta_gradient(net, theta, batch).grad, erm)
            < 30 * small
        )
        assert (
            relative_error(
                rm.IMAML(1 / small, 20, solver="newton_cg").meta_gradient(net, theta, batch).grad,
                erm,
            )
            < 30 * small
        )


# ---- the theorem of Collins et al. 2022: which methods recover col(B_*) --------------

DIM, RANK, TASKS, ALPHA, BETA = 8, 2, 24, 0.5, 0.15


def angle_after(method, steps=1500, seed=0):
    """The principal angle between col(B) and col(B_*) before and after meta-training.

    On population losses, with the start of the theorem: B_0 orthogonal up to the scale
    alpha^{-1/2}, w_0 = 0 (Collins et al. 2022, Theorem 1).
    """
    model, net = rm.TwoLayerLinear(DIM, RANK, seed=seed), rm.two_layer_linear(DIM, RANK)
    rng = np.random.default_rng(seed)
    # Within about 45 degrees of B_*, a condition of the theorem.
    B = np.linalg.qr(model.basis + 0.3 * rng.standard_normal((DIM, RANK)))[0] / np.sqrt(ALPHA)
    theta = np.concatenate([B.T.ravel(), np.zeros(RANK)])
    for step in range(steps):
        theta = (
            theta
            - BETA
            * method.meta_gradient(
                net, theta, model.population(tasks=TASKS, seed=seed, step=step), chunk=TASKS
            ).grad
        )
    learned = net.named(theta)["0.weight"].T
    return closed_forms.principal_angle(B, model.basis), closed_forms.principal_angle(
        learned, model.basis
    )


@pytest.mark.parametrize(
    "method",
    [rm.MAML(ALPHA), rm.FirstOrderMAML(ALPHA), rm.ANIL(ALPHA), rm.FirstOrderANIL(ALPHA)],
    ids=lambda m: type(m).__name__,
)
def test_adaptation_recovers_the_representation_on_population_losses(method):
    before, after = angle_after(method)
    assert before > 0.3
    assert (
        after < 1e-3 * before
    )  # the theorem: the distance shrinks by a constant factor in every step


def test_erm_does_not_recover_the_representation():
    before, after = angle_after(rm.ERM())
    assert after > 0.3 * before
