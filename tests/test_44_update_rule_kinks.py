"""Update rules where they have no derivative: roots at zero, norms at their limit."""

from dataclasses import replace

import numpy as np
import pytest
from update_rule_cases import name_of

import refmaml as rm
from refmaml.errors import NotDifferentiableError
from refmaml.oracles.tolerance import relative_error

SQUARES = [
    (rm.Adam(eps=0.1), 1.0),
    (rm.AdamW(eps=0.1, weight_decay=0.0), 1.0),
    (rm.RMSprop(0.75, eps=0.1), 0.5),
    (rm.Adagrad(eps=0.1), 1.0),
]


@pytest.mark.parametrize("rule,scale", SQUARES, ids=name_of)
def test_a_gradient_of_exactly_0_has_the_slope_of_the_limit(rule, scale):
    """d = g / (scale |g| + eps) in the first step, whose slope at g = 0 is 1 / eps."""
    A, B = np.array([[2.0, 1.0], [1.0, 2.0]]), np.diag([1.0, 3.0])
    theta, a = np.array([1.0, -0.5]), 0.1  # grad f = (1.5, 0), and H has no zero row
    batch = rm.Batch(A[None], np.zeros((1, 2)), B[None], np.ones((1, 2)))
    g = A @ theta
    assert g[1] == 0
    slope = rule.eps / (scale * abs(g) + rule.eps) ** 2
    phi = theta - a * g / (scale * abs(g) + rule.eps)
    truth = (np.eye(2) - a * A @ np.diag(slope)) @ B @ (phi - 1)
    method = rm.MAML(a, 1, rule=rule)
    out = method.meta_gradient(rm.Quadratic(2), theta, batch, hyper=True)
    assert relative_error(out.grad, truth) < 1e-14
    assert all(np.isfinite(value).all() for value in out.hyper.values())
    near = method.meta_gradient(rm.Quadratic(2), theta + [0, 1e-10], batch).grad
    assert 0 < relative_error(near, out.grad) < 1e-7


@pytest.mark.parametrize("rule,scale", SQUARES, ids=name_of)
def test_a_parameter_that_never_gets_a_gradient_keeps_the_query_set_s(rule, scale):
    A, B = np.diag([2.0, 0.0]), np.diag([1.0, 3.0])
    batch = rm.Batch(A[None], np.zeros((1, 2)), B[None], np.ones((1, 2)))
    theta = np.array([1.0, -0.5])
    out = rm.MAML(0.1, 5, rule=rule).meta_gradient(rm.Quadratic(2), theta, batch)
    assert np.isfinite(out.grad).all() and out.grad[1] == 3 * (theta[1] - 1)


@pytest.mark.parametrize("rule,scale", SQUARES, ids=name_of)
def test_a_gradient_whose_square_underflows_is_refused_in_one_line(rule, scale):
    A = np.ones((1, 1, 1))
    batch = rm.Batch(A, np.zeros((1, 1)), A, np.ones((1, 1)))
    with pytest.raises(NotDifferentiableError) as caught:
        rm.MAML(0.1, 1, rule=rule).meta_gradient(rm.Quadratic(1), np.array([1e-170]), batch)
    text = str(caught.value)
    assert text.startswith(f"{type(rule).__name__}: expected gradients whose squares")
    assert "eps_root" in text and "\n" not in text
    inside = replace(rule, eps_root=1e-3)
    out = rm.MAML(0.1, 1, rule=inside).meta_gradient(rm.Quadratic(1), np.array([1e-170]), batch)
    assert np.isfinite(out.grad).all()


@pytest.mark.parametrize(
    "rule", [rm.Clip(norm=5 + 1e-6), rm.Clip(value=4.0), rm.Clip(norm=3 + 1e-6, per_tensor=True)]
)
def test_a_gradient_exactly_at_its_limit_is_refused_in_one_line(rule):
    size = np.array([3.0, 4.0]) if not rule.per_tensor else np.array([3.0, 0.0])
    A = np.eye(2)[None]
    batch = rm.Batch(A, np.zeros((1, 2)), A, np.ones((1, 2)))
    for method in (rm.MAML(0.1, 1, rule=rule), rm.MAML(0.1, 2, rule=rule)):
        with pytest.raises(NotDifferentiableError, match="^Clip: expected gradients off their"):
            method.meta_gradient(rm.Quadratic(2), size, batch)
    out = rm.MAML(0.1, 1, rule=rule).meta_gradient(rm.Quadratic(2), size * 1.01, batch)
    assert np.isfinite(out.grad).all()


def test_a_gradient_of_0_is_not_clipped():
    A = np.eye(2)[None]
    batch = rm.Batch(A, np.zeros((1, 2)), A, np.ones((1, 2)))
    for rule in (rm.Clip(norm=1.0), rm.Clip(value=1.0)):
        out = rm.MAML(0.1, 2, rule=rule).meta_gradient(
            rm.Quadratic(2), np.zeros(2), batch, hyper=True
        )
        plain = rm.MAML(0.1, 2).meta_gradient(rm.Quadratic(2), np.zeros(2), batch)
        assert np.array_equal(out.grad, plain.grad)
        assert all(np.isfinite(value).all() for value in out.hyper.values())
