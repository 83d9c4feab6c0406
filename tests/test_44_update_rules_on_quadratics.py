"""Update rules on quadratics, against closed forms."""

import numpy as np
import pytest
from update_rule_cases import PROMISE, quadratic

import refmaml as rm
from refmaml.oracles import complex_step
from refmaml.oracles.tolerance import relative_error


def in_eigenvectors(A, p):
    """The matrix Q p(h) Q' of A = Q diag(h) Q', p a function of an eigenvalue."""
    h, Q = np.linalg.eigh(A)
    return Q @ np.diag([p(value) for value in h]) @ Q.T


def mean_gradient(batch, jacobian, centre_of):
    """dM/dtheta where phi_K - c = J (theta - c), or phi_K is given by centre_of."""
    rows = []
    for t in range(len(batch)):
        A, c, B, d = (a[t] for a in batch.arrays)
        J = jacobian(A)
        rows.append(J @ B @ (centre_of(J, A, c) - d))
    return np.mean(rows, axis=0)


@pytest.mark.parametrize("K", [1, 2, 5, 20])
def test_momentum_on_a_quadratic_is_powers_of_a_small_matrix_for_each_eigenvalue(K):
    """(e, m) <- [[1 - a h, -a mu], [h, mu]] (e, m), e = phi - c, m = 0 at first."""
    net, theta, batch = quadratic()
    a, mu = 0.1, 0.7

    def p(h, mu=mu):
        matrix = np.array([[1 - a * h, -a * mu], [h, mu]])
        return np.linalg.matrix_power(matrix, K)[0, 0]

    truth = mean_gradient(
        batch, lambda A: in_eigenvectors(A, p), lambda J, A, c: c + J @ (theta - c)
    )
    out = rm.MAML(a, K, rule=rm.SGD(momentum=mu)).meta_gradient(net, theta, batch, hyper=True)
    assert relative_error(out.grad, truth) < 1e-13

    def loss(mu):
        total = 0
        for t in range(len(batch)):
            A, c, B, d = (x[t] for x in batch.arrays)
            r = c + in_eigenvectors(A, lambda h: p(h, mu)) @ (theta - c) - d
            total = total + r @ B @ r / 2
        return total / len(batch)

    slope = complex_step.derivative(loss(mu + 1j * complex_step.H))
    assert abs(out.hyper["momentum"] - slope) <= PROMISE * max(abs(slope), 1e-3)


def test_an_anchor_on_a_quadratic_has_the_jacobian_of_a_shifted_power():
    """d phi_K / d theta = (s + h r^K) / (s + h), r = 1 - a (h + s), h an eigenvalue."""
    net, theta, batch = quadratic()
    a, s, K = 0.1, 0.6, 7

    def p(h):
        return (s + h * (1 - a * (h + s)) ** K) / (s + h)

    truth = mean_gradient(
        batch, lambda A: in_eigenvectors(A, p), lambda J, A, c: c + J @ (theta - c)
    )
    out = rm.MAML(a, K, anchor=s).meta_gradient(net, theta, batch)
    assert relative_error(out.grad, truth) < 1e-13
    without = rm.MAML(a, K).meta_gradient(net, theta, batch)
    assert relative_error(without.grad, truth) > 0.01


@pytest.mark.parametrize("weight_decay,nesterov", [(0.3, False), (0.3, True), (0.0, True)])
def test_weight_decay_and_nesterov_on_one_parameter_are_a_product_of_matrices(
    weight_decay, nesterov
):
    """w <- w - a d with h = (A + wd) w for the centre 0: linear in (w, m)."""
    a, mu, curvature, K, w = 0.1, 0.6, 2.0, 6, 1.5
    H = curvature + weight_decay
    step = np.array([[1 - a * H, -a * mu], [H, mu]])
    if nesterov:  # d = h + mu m', m' = mu m + h
        step = np.array([[1 - a * (1 + mu) * H, -a * mu**2], [H, mu]])
    p = np.linalg.matrix_power(step, K)[0, 0]
    A, c = np.array([[[curvature]]]), np.zeros((1, 1))
    method = rm.MAML(a, K, rule=rm.SGD(mu, nesterov=nesterov, weight_decay=weight_decay))
    out = method.meta_gradient(rm.Quadratic(1), np.array([w]), rm.Batch(A, c, A, c))
    assert abs(out.grad[0] / (p * curvature * p * w) - 1) < 1e-13
