"""Early stopping as a most probable point: linear regression, in closed form.

    y = X phi + noise of variance 1,  f = 1/2 |y - X phi|^2,  H = X'X
    phi_K: K steps of length alpha from theta

phi_K is the most probable phi under a prior N(theta, Q). Along an eigenvector of H with
eigenvalue h, phi_K - c = (1 - alpha h)^K (theta - c), and the posterior's mean has q^-1
/(h + q^-1) in place of the power. So

    q = ((1 - alpha h)^-K - 1)/h,  and K alpha where h = 0

    covariance of the posterior   (H + Q^-1)^-1 = alpha sum_{k<K} (I - alpha H)^k
    log p(y) = -1/2 <r_0, r_K> + K/2 log det(I - alpha X X') - N/2 log 2 pi
    d log p(y)/dtheta = X' r_K,  r_k = y - X phi_k

Proof of the evidence. y ~ N(X theta, E), E = I + X Q X'. On the eigenvectors of X X', E
is 1 + q h = (1 - alpha h)^-K, so E^-1 = (I - alpha X X')^K, and r_{k+1} = (I - alpha X
X') r_k gives E^-1 r_0 = r_K.

q >= 0 needs 0 < (1 - alpha h)^K <= 1. It fails where alpha h >= 1 with odd K, and where
alpha h = 1 or alpha h > 2: q < 0 is no variance. Q depends on the task's own X, so it
is not a prior that all tasks share.
Sources: Santos 1996 (steps as a prior); Grant et al. 2018, section 3.1. Covariance,
evidence and its gradient are derived here.
"""

from math import log, pi
from typing import NamedTuple

import numpy as np

from refmaml.errors import expect


class EarlyStopping(NamedTuple):
    """phi_K (P,), Q (P, P), the posterior's covariance, log p(y), X' r_K (P,)."""

    phi: np.ndarray
    prior: np.ndarray
    covariance: np.ndarray
    log_evidence: float
    gradient: np.ndarray


def early_stopping(
    X: np.ndarray, y: np.ndarray, theta: np.ndarray, alpha: float, K: int
) -> EarlyStopping:
    """All of it by powers of I - alpha H; X (N, P), y (N,), theta (P,).

    Raises ArgumentError where no prior exists.
    """
    h, V = np.linalg.eigh(X.T @ X)
    h = np.where(h > len(h) * np.finfo(float).eps * h.max(), h, 0.0)
    left = (1 - alpha * h) ** K
    exists = bool(((left > 0) & (left <= 1)).all())
    wanted = "alpha h < 1 for the eigenvalues h of X'X, or an even K and alpha h < 2"
    expect(exists, "alpha", wanted, lambda: f"alpha h up to {alpha * h.max():.3g}, K = {K}")
    flat = h == 0
    q = np.where(flat, K * alpha, (1 / left - 1) / np.where(flat, 1, h))
    sums = np.where(flat, K * alpha, (1 - left) / np.where(flat, 1, h))
    r_0 = y - X @ theta
    phi = theta + V @ (sums * (V.T @ (X.T @ r_0)))
    r_K = y - X @ phi
    half_log_det = K / 2 * np.log(abs(1 - alpha * h)).sum()  # that of X X': the same h
    evidence = -0.5 * r_0 @ r_K + half_log_det - len(y) / 2 * log(2 * pi)
    return EarlyStopping(phi, V * q @ V.T, V * sums @ V.T, float(evidence), X.T @ r_K)


def most_probable(
    X: np.ndarray, y: np.ndarray, theta: np.ndarray, prior: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the posterior under N(theta, prior), by LAPACK."""
    covariance = np.linalg.inv(X.T @ X + np.linalg.inv(prior))
    return theta + covariance @ (X.T @ (y - X @ theta)), covariance


def log_evidence(X, y, theta, prior):
    """log N(y; X theta, I + X prior X'), by LAPACK; complex theta too."""
    E, r = np.eye(len(y)) + X @ prior @ X.T, y - X @ theta
    constant = np.linalg.slogdet(E)[1] + len(y) * log(2 * pi)
    return -0.5 * (r @ np.linalg.solve(E, r) + constant)
