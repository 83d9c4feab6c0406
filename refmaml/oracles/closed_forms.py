"""Models whose meta-gradients are known in closed form.

Every function is for a single task; the caller takes the mean over tasks.

Quadratics: f = 1/2 (w - c)' A (w - c) and g = 1/2 (w - d)' B (w - d), A, B symmetric.
Linear regression is a quadratic: the mean squared error has A = (2/N) X'X and
A c = (2/N) X'y.
The two-layer linear model of Collins et al. 2022 has the population loss
1/2 E (w' B' x - w_*' B_*' x)^2 = 1/2 |B w - B_* w_*|^2.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve, subspace_angles


class QuadraticTask(NamedTuple):
    """Support loss (A, c), query loss (B, d)."""

    A: np.ndarray
    c: np.ndarray
    B: np.ndarray
    d: np.ndarray


def quadratic_of_regression(X, y):
    """(A, c) of the mean squared error of y (N,) on X (N, d), N >= d.

    A = (2/N) X'X is the Hessian, c the minimiser, by the normal equations.
    """
    A = 2 / len(X) * X.T @ X
    return A, cho_solve(cho_factor(A), 2 / len(X) * X.T @ y)


def adapted(task, theta, alpha, K):
    """phi_K = c + (I - alpha A)^K (theta - c)."""
    return task.c + power(task.A, alpha, K) @ (theta - task.c)


def power(A, alpha, K):
    """(I - alpha A)^K through the eigenvalues of A."""
    values, vectors = np.linalg.eigh(A)
    return vectors * (1 - alpha * values) ** K @ vectors.T


def maml_gradient(task, theta, alpha, K):
    """(I - alpha A)^K B (phi_K - d)."""
    return power(task.A, alpha, K) @ task.B @ (adapted(task, theta, alpha, K) - task.d)


def first_order_gradient(task, theta, alpha, K):
    """B (phi_K - d)."""
    return task.B @ (adapted(task, theta, alpha, K) - task.d)


def reptile_direction(task, theta, alpha, K):
    """theta - phi_K."""
    return theta - adapted(task, theta, alpha, K)


def imaml_solution(task, theta, strength):
    """phi* = (A + lambda I)^{-1} (A c + lambda theta)."""
    system = cho_factor(task.A + strength * np.eye(len(theta)))
    return cho_solve(system, task.A @ task.c + strength * theta)


def imaml_jacobian(A, strength):
    """dphi*/dtheta = lambda (A + lambda I)^{-1}.

    In one dimension this is 1 / (1 + f''/lambda).
    """
    return strength * cho_solve(cho_factor(A + strength * np.eye(len(A))), np.eye(len(A)))


def imaml_gradient(task, theta, strength):
    """(I + A / lambda)^{-1} B (phi* - d)."""
    return (
        imaml_jacobian(task.A, strength) @ task.B @ (imaml_solution(task, theta, strength) - task.d)
    )


# ---- the two-layer linear model ------------------------------------------------------
# B (d, r), w (r,); b = B_* w_*t is what task t is to regress to; one inner step of size
# alpha.


def residual(B, w, b):
    """e = B w - b, so that the loss is |e|^2 / 2, its gradient (e w', B' e)."""
    return B @ w - b


def erm_update(B, w, b):
    """The gradient at (B, w) itself."""
    e = residual(B, w, b)
    return np.outer(e, w), B.T @ e


def fo_anil_update(B, w, b, alpha):
    """w1 = w - alpha B'e;  (e1 w1', B'e1)."""
    return erm_update(B, w - alpha * B.T @ residual(B, w, b), b)


def anil_update(B, w, b, alpha):
    """FO-ANIL's update plus the derivative through w1.

    dw1 = -alpha (dB' e + B' dB w + B'B dw), and the gradient in w1 is B'e1.
    """
    e = residual(B, w, b)
    dB, dw = fo_anil_update(B, w, b, alpha)
    return dB - alpha * (np.outer(e, dw) + np.outer(B @ dw, w)), dw - alpha * B.T @ B @ dw


def fo_maml_update(B, w, b, alpha):
    """B1 = B - alpha e w', w1 = w - alpha B'e;  the gradient at (B1, w1)."""
    dB, dw = erm_update(B, w, b)
    return erm_update(B - alpha * dB, w - alpha * dw, b)


def maml_update(B, w, b, alpha):
    """(U, u) - alpha H (U, u), where (U, u) is FO-MAML's update.

    H (U, u) = (r w' + e u', U'e + B'r) with r = U w + B u.
    """
    e = residual(B, w, b)
    U, u = fo_maml_update(B, w, b, alpha)
    r = U @ w + B @ u
    return U - alpha * (np.outer(r, w) + np.outer(e, u)), u - alpha * (U.T @ e + B.T @ r)


def principal_angle(B, B_star):
    """The largest angle between the column spaces of B and B_*, in radians."""
    return float(subspace_angles(B, B_star).max())
