"""Heads solved in closed form, once more: dense normal equations by LAPACK.

The oracles of ridge_head.py, logistic_head.py and logistic_iterations.py in
refmaml/methods. They solve (F, F) systems with complex numbers, so that a complex step
differentiates them. They know neither Woodbury's identity nor any adjoint. That of
bayesian_regression.py is the likelihood of the targets with their covariance matrix.
"""

from functools import cache

import numpy as np


def features(net, W, x):
    """What the last layer of the net reads, (B, N, F), at parameters W (B, P)."""
    for layer, w in zip(net.layers[:-1], net.parameters.views(W), strict=False):
        x, _ = layer.forward(net.kernels, w, x)
    return x


def one_hot(y, classes):
    """Labels (B, N) as unit vectors (B, N, C); real targets as they are."""
    return np.eye(classes)[y] if y.dtype.kind in "iu" else y


def ridge_weights(X, Y, strength):
    """W (F, C) = (X'X + lambda I)^-1 X'Y of X (N, F), Y (N, C)."""
    return np.linalg.solve(X.T @ X + strength * np.eye(X.shape[1]), X.T @ Y)


def logistic_weights(X, Y, strength, steps=25):
    """W (F, C): for each class the minimiser of the logistic loss with its penalty.

    Newton's steps on the dense system, halved while the objective rises by more than
    its rounding.
    """
    return np.stack([logistic_row(X, y, strength, steps) for y in Y.T], axis=1)


def logistic_row(X, y, strength, steps):
    """w (F,) of one class."""

    def objective(w):
        z = (X @ w).real
        return (np.logaddexp(0, z) - y * z).sum() + (strength * (w @ w) / 2).real

    w = np.zeros(X.shape[1], np.result_type(X, strength))
    for _ in range(steps):
        d = newton_step(X, y, strength, w)
        t, goal = 1.0, objective(w) * (1 + 1e-12)
        while objective(w - t * d) > goal:
            t /= 2
        w = w - t * d
    return w


def newton_step(X, y, strength, w):
    """H^-1 G (F,) of one class at w."""
    mu = 1 / (1 + np.exp(-X @ w))
    H = X.T @ ((mu * (1 - mu))[:, None] * X) + strength * np.eye(X.shape[1])
    return np.linalg.solve(H, X.T @ (mu - y) + strength * w)


def iterated_weights(steps):
    """(X, Y, lambda) -> W (F, C) after so many full Newton steps from 0."""

    def weights(X, Y, strength):
        W = np.zeros((X.shape[1], Y.shape[1]), np.result_type(X, strength))
        for c, y in enumerate(Y.T):
            for _ in range(steps):
                W[:, c] -= newton_step(X, y, strength, W[:, c])
        return W

    return weights


def svm_weights(cost):
    """(X, Y, lambda) -> W (F, C) of the multi-class SVM's dual.

    SciPy's optimiser says which entries are at their bounds, from real parts; LAPACK
    solves for the others.
    """
    known = {}  # a complex step changes no real part

    def weights(X, Y, strength):
        key = X.real.tobytes(), Y.tobytes(), np.real(strength)
        if key not in known:
            known[key] = at_bounds(X.real, Y, np.real(strength), cost)
        return X.T @ dual_solution(X, Y, strength, cost, known[key])

    return weights


svm_of_cost = cache(svm_weights)  # the same known bounds in every call


def dual_matrices(X, Y, strength):
    """G (N C, N C), and A (N, N C), which sums the classes of an example."""
    N, C = Y.shape
    G = np.kron(X @ X.T + strength * np.eye(N), np.eye(C))
    return G, np.kron(np.eye(N), np.ones((1, C)))


def at_bounds(X, Y, strength, cost):
    """Which of the entries z <= cost y (N C,) are equal at the optimum."""
    from scipy.optimize import minimize

    G, A = dual_matrices(X, Y, strength)
    y = Y.ravel()
    found = minimize(
        lambda z: z @ G @ z / 2 - y @ z,
        cost / 2 * (y - 1 / Y.shape[1]),
        jac=lambda z: G @ z - y,
        method="SLSQP",
        bounds=[(None, bound) for bound in cost * y],
        constraints={"type": "eq", "fun": lambda z: A @ z, "jac": lambda z: A},
        options={"ftol": 1e-16, "maxiter": 1000},
    )
    return cost * y - found.x < 1e-6 * cost


def dual_solution(X, Y, strength, cost, fixed):
    """Z (N, C) with the entries `fixed` at their bounds: one linear system."""
    G, A = dual_matrices(X, Y, strength)
    y, free = Y.ravel(), ~fixed
    z = np.where(fixed, cost * y, 0).astype(G.dtype)
    system = np.block([[G[np.ix_(free, free)], A[:, free].T], [A[:, free], 0 * A @ A.T]])
    right = np.concatenate([(y - G @ z)[free], -A @ z])
    z[free] = np.linalg.solve(system, right)[: free.sum()]
    return z.reshape(Y.shape)


def weights_of(method):
    """The function (X, Y, lambda) -> W (F, C) of a method or a head."""
    if hasattr(method, "cost"):
        return svm_of_cost(method.cost)
    if not hasattr(method, "newton_steps"):
        return ridge_weights
    through = getattr(method, "differentiate", "") == "iterations"
    return iterated_weights(method.newton_steps) if through else logistic_weights


def adapted(net, method, x, y, meta):
    """phi (B, P): each row of meta (B, P + 3) with its head solved on x, y (B, N, ...).

    meta  theta, log lambda, alpha, beta. With an intercept, X has a column of ones.
    """
    weights = weights_of(method)
    P, C = net.num_params, net.layers[-1].out_features
    W, X, Y = meta[:, :P].copy(), features(net, meta[:, :P], x), one_hot(y, C)
    last, F = net.parameters.views(W)[-1], X.shape[2]
    if method.intercept:
        X = np.concatenate([X, np.ones((*X.shape[:2], 1))], axis=2)
    for b, (ell, alpha, beta) in enumerate(meta[:, P:]):
        V = alpha * weights(X[b], Y[b], np.exp(ell))
        last["weight"][b] = V[:F].T
        if "bias" in last:
            last["bias"][b] = beta + V[F:].sum(axis=0)  # the row of intercepts, or none
    return W


# ---- ALPaCA --------------------------------------------------------------------------


def with_ones(net, X):
    """X (N, F) with a column of ones where the last layer has a bias."""
    return np.hstack([X, np.ones((len(X), 1))]) if net.layers[-1].bias else X


def log_likelihood(X, Y, W0, precision, v):
    """log p(Y) of Y (N, C) with rows of weights N(W0 (C, F), v precision^-1).

    Each column of Y is Gaussian with the mean X W0' and the covariance v (I + X
    precision^-1 X').
    """
    K = v * (np.eye(len(X)) + X @ np.linalg.solve(precision, X.T))
    E = Y - X @ W0.T
    fit = (E * np.linalg.solve(K, E)).sum()
    return -(Y.shape[1] * (np.log(np.linalg.det(K)) + len(X) * np.log(2 * np.pi)) + fit) / 2


def predictive_loss(net, task, meta):
    """M of ALPaCA for one task, for each row of meta (B, M): (B,).

    -log p(y | q, support) = log p(support) - log p(support and y): no posterior.
    """
    P, B, values = net.num_params, len(meta), []
    sets = (np.broadcast_to(x, (B, *x.shape[1:])) for x in (task.x_support, task.x_query))
    X, Q = (features(net, meta[:, :P], x) for x in sets)
    last = net.parameters.views(meta[:, :P])[-1]
    for b in range(B):
        W0 = last["weight"][b]
        if net.layers[-1].bias:
            W0 = np.hstack([W0, last["bias"][b][:, None]])
        G, v = W0.shape[1], np.exp(meta[b, -1])
        L = meta[b, P:-1].reshape(G, G)
        prior, Y, support = (W0, L @ L.T, v), task.y_support[0], with_ones(net, X[b])
        alone = log_likelihood(support, Y, *prior)
        both = [
            log_likelihood(np.vstack([support, q[None]]), np.vstack([Y, y[None]]), *prior)
            for q, y in zip(with_ones(net, Q[b]), task.y_query[0], strict=True)
        ]
        values.append(np.mean([alone - together for together in both]))
    return np.array(values)
