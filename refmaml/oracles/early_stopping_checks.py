"""Rung 5: early stopping as a most probable point, on linear regression."""

import numpy as np

from refmaml.execution import Sequential
from refmaml.layers import MSE, Linear
from refmaml.methods import MAML
from refmaml.oracles import complex_step
from refmaml.oracles.early_stopping import early_stopping, log_evidence, most_probable
from refmaml.oracles.tolerance import Check, relative_error, tolerance


def early_stopping_checks(alpha=0.05, K=4):
    """K steps of the engine, and LAPACK on the prior that they imply."""
    rng = np.random.default_rng(0)
    for N, P in ((5, 8), (8, 5)):
        X, y, theta = rng.standard_normal((N, P)), rng.standard_normal(N), rng.standard_normal(P)
        found, name = early_stopping(X, y, theta, alpha, K), f"{N} examples, {P} parameters"
        net = Sequential([Linear(P, 1, bias=False)], MSE("sum", 0.5), (P,))
        phi = MAML(alpha, K).adapt(net, theta, X[None], y[None, :, None])[0]
        mean, covariance = most_probable(X, y, theta, found.prior)
        # Q itself is inverted, and then its sum with H.
        limit = tolerance(float, K * N * P) * float(np.linalg.cond(found.prior))

        def checked(quantity, oracle, value, truth, name=name, limit=limit):
            error = relative_error(value, truth)
            return Check("5 closed form", name, quantity, oracle, error, limit)

        yield checked("phi_K", "K steps of MAML", found.phi, phi)
        yield checked("phi_K", "MAP under N(theta, Q)", phi, mean)
        yield checked("posterior covariance", "LAPACK", found.covariance, covariance)
        truth = log_evidence(X, y, theta, found.prior)
        yield checked("log evidence", "LAPACK", found.log_evidence, truth)
        steps = complex_step.shifted(theta, np.eye(P))
        slopes = [complex_step.derivative(log_evidence(X, y, at, found.prior)) for at in steps]
        yield checked("its gradient", "complex step", found.gradient, slopes)
