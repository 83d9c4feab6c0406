"""Curvature operators: what they own, what they multiply, and what they refuse."""

import numpy as np
import pytest
from refusals import refused

import refmaml as rm
from refmaml import kernels

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 5, 2))
NET = rm.mlp((3, 4, 2), activation="tanh")
THETA = NET.init(0, np.float64)
P = NET.num_params
VECTOR = RNG.standard_normal(P)
OPERATORS = [NET.hessian, NET.gauss_newton, NET.with_kernels(kernels.cpu()).hessian]


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_owns_what_it_depends_on(operator):
    theta, x, y = THETA.copy(), X.copy(), Y.copy()
    H = operator(theta, x, y)
    before = H @ VECTOR
    for a in (theta, x, y):
        a += 1
    assert np.array_equal(H @ VECTOR, before)


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_multiplies_complex_vectors_part_by_part(operator):
    H = operator(THETA, X, Y)
    v = VECTOR + 1j * VECTOR[::-1]
    wanted = H @ VECTOR + 1j * (H @ VECTOR[::-1])
    for A in (H, H.T, H.H):
        assert (A @ v).dtype == complex and np.array_equal(A @ v, wanted)
        assert np.array_equal((A @ v[:, None])[:, 0], wanted)
    assert np.array_equal(
        H @ VECTOR.astype(np.float32), H @ VECTOR.astype(np.float32).astype(float)
    )


def test_a_complex_hessian_has_its_transpose_and_its_adjoint():
    H = NET.hessian(THETA + 1e-2j * VECTOR, X, Y)
    A, v = H @ np.eye(P), VECTOR + 1j * VECTOR[::-1]
    near = dict(rtol=1e-12, atol=1e-12 * abs(A).max())  # sums of 26 terms in float64
    np.testing.assert_allclose(H.T @ v, A.T @ v, **near)
    np.testing.assert_allclose(H.H @ v, A.conj().T @ v, **near)


def test_an_operator_refuses_what_it_cannot_multiply():
    H = NET.hessian(THETA, X, Y)
    masked = np.ma.array(VECTOR, mask=VECTOR > 0)
    for v in (masked, VECTOR[1:], VECTOR[None], np.zeros((P, 2, 2)), VECTOR.astype(object),
              VECTOR > 0, [1.0, 2.0]):  # fmt: skip
        for call in (H.__matmul__, H.dot, H.T.dot):
            refused(lambda v=v, call=call: call(v), "v")
    refused(lambda: H.matvec(masked), "v")
    refused(lambda: H.matmat(np.zeros((P + 1, 2))), "v")
    assert (H @ VECTOR.tolist()).shape == (P,)
    refused(lambda: NET.hessian(THETA.tolist(), X, Y), "theta")
    refused(lambda: NET.hessian(np.ma.array(THETA), X, Y), "theta")
    refused(lambda: NET.hessian(THETA, X.tolist(), Y), "x")
    refused(lambda: NET.gauss_newton(THETA, X, Y.tolist()), "y")
