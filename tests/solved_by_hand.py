"""Solved heads, ALPaCA and CNP by hand in NumPy, right and wrong.

Every choice that a mistake changes is an argument.
"""

import numpy as np
from solved_implementations import context_name, last_layer, tasks

from refmaml.oracles.solved_heads import at_bounds, dual_matrices, dual_solution


def rows_of(problem, y):
    """Targets (N, C): numbers, or labels as unit vectors."""
    if y.dtype.kind == "f":
        return y
    return np.eye(problem.net.layers[-1].out_features)[y].astype(np.float64)


def mean_of(task_gradient):
    """A function of (problem, params, batch) from one task's {name: array}."""

    def gradient(problem, params, batch):
        rows = [task_gradient(problem, params, *task) for task in tasks(batch)]
        return {name: np.mean([row[name] for row in rows], axis=0) for name in params}

    return gradient


# ---- heads: (X, Y, lambda, problem) -> W (C, F), and dW -> (dX, dlambda) -------------


def ridge(X, Y, lam, problem):
    A = X.T @ X + lam * np.eye(X.shape[1])
    W = np.linalg.solve(A, X.T @ Y).T

    def adjoint(dW):
        U = np.linalg.solve(A, dW.T).T
        return (Y - X @ W.T) @ U - X @ U.T @ W, -(U * W).sum()

    return W, adjoint


def logistic(X, Y, lam, problem, steps=14):
    W, F = np.zeros((Y.shape[1], X.shape[1])), X.shape[1]

    def at(W):
        Mu = 1 / (1 + np.exp(-X @ W.T))
        S = Mu * (1 - Mu)
        return Mu, S, np.einsum("nf,nc,ng->cfg", X, S, X) + lam * np.eye(F)

    for _ in range(steps):
        Mu, S, H = at(W)
        W = W - np.linalg.solve(H, ((Mu - Y).T @ X + lam * W)[..., None])[..., 0]
    Mu, S, H = at(W)

    def adjoint(dW):
        U = np.linalg.solve(H, dW[..., None])[..., 0]
        return (Y - Mu) @ U - (S * (X @ U.T)) @ W, -(U * W).sum()

    return W, adjoint


def svm(X, Y, lam, problem, still=True):
    cost, (N, C) = problem.method.cost, Y.shape
    fixed = at_bounds(X, Y, lam, cost)
    Z = dual_solution(X, Y, lam, cost, fixed)
    W, free = Z.T @ X, ~fixed if still else np.ones(N * C, bool)
    G, A = dual_matrices(X, Y, lam)
    system = np.block([[G[np.ix_(free, free)], A[:, free].T], [A[:, free], np.zeros((N, N))]])

    def adjoint(dW):
        b = np.zeros(N * C)
        right = np.concatenate([(X @ dW.T).ravel()[free], np.zeros(N)])
        b[free] = np.linalg.solve(system, right)[: free.sum()]
        B = b.reshape(N, C)
        return Z @ (dW - B.T @ X) - B @ W, -(B * Z).sum()

    return W, adjoint


def of_head(solve, factor=1.0, through=True, slope=True, averaged=False, **options):
    """The meta-gradient of a solved head."""

    def task_gradient(problem, params, xs, ys, xq, yq):
        params = {name: a.astype(np.float64) for name, a in params.items()}
        X, Y = problem.features(params, xs).astype(np.float64), rows_of(problem, ys)
        ell, alpha, beta = (params[f"head.{n}"] for n in ("log_strength", "scale", "shift"))
        lam = np.exp(ell[0]) * (len(X) if averaged else 1)
        W, adjoint = solve(X, Y, lam, problem, **options)
        W = factor * W
        weight, bias = last_layer(problem)
        phi = params | {weight: alpha * W}
        if bias in params:
            phi[bias] = np.repeat(beta, len(W))
        g = problem.gradient(phi, xq, yq)
        dw, db = g[weight], g.get(bias, np.zeros(len(W)))
        dX, dlam = adjoint(factor * alpha * dw)
        body = problem.features_pullback(params, xs, through * dX)
        own = {
            "head.log_strength": np.array([lam * dlam]) * through * slope,
            "head.scale": np.array([(dw * W).sum()]),
            "head.shift": np.array([db.sum()]),
            weight: 0 * dw,
        }
        own |= {bias: 0 * db} if bias in params else {}
        return {name: own[name] if name in own else g[name] + body[name] for name in params}

    return mean_of(task_gradient)


# ---- ALPaCA --------------------------------------------------------------------------


def alpaca(log_det=True, uncertain=True, mean=True):
    """The meta-gradient of ALPaCA: dense algebra, one task at a time."""

    def task_gradient(problem, params, xs, ys, xq, yq):
        X, Q = (problem.features(params, x) for x in (xs, xq))
        Y, Yq = (rows_of(problem, y) for y in (ys, yq))
        weight, bias = last_layer(problem)
        W0, L, v = params[weight], params["prior.factor"], np.exp(params["log_noise"][0])
        if bias in params:
            X, Q = (np.concatenate([a, np.ones((len(a), 1))], axis=1) for a in (X, Q))
            W0 = np.concatenate([W0, params[bias][:, None]], axis=1)
        W0 = W0 if mean else 0 * W0
        inverse = np.linalg.inv(X.T @ X + L @ L.T)
        W, a = (Y.T @ X + W0 @ L @ L.T) @ inverse, Q @ inverse
        s = 1 + (Q * a).sum(1) if uncertain else np.ones(len(Q))
        e, (M, C) = Yq - Q @ W.T, Yq.shape
        q, logs = (e * e).sum(1) / (v * s), C if log_det else 0
        dz, ds = -e / (v * s)[:, None] / M, uncertain * (logs - q) / s / (2 * M)
        U = dz.T @ Q @ inverse
        dA = -(U.T @ W + W.T @ U) / 2 - (ds[:, None] * a).T @ a
        dX, dQ = Y @ U + 2 * X @ dA, dz @ W + 2 * ds[:, None] * a
        dL = (2 * dA + W0.T @ U + U.T @ W0) @ L
        dW0 = mean * U @ L @ L.T
        F = X.shape[1] - (bias in params)
        parts = [problem.features_pullback(params, x, d[:, :F]) for x, d in ((xs, dX), (xq, dQ))]
        own = {"prior.factor": dL, "log_noise": np.array([(logs - q).sum() / (2 * M)])}
        own |= {weight: dW0[:, :F]} | ({bias: dW0[:, F]} if bias in params else {})
        return {name: own[name] if name in own else sum(p[name] for p in parts) for name in params}

    return mean_of(task_gradient)


# ---- CNP -----------------------------------------------------------------------------


def cnp(pooled=np.mean, share=True, targets=True):
    """The meta-gradient of a CNP: the encoder's passes written out."""

    def task_gradient(problem, params, xs, ys, xq, yq):
        h, names = xs.reshape(len(xs), -1), encoder_layers(params)
        if not problem.method.by_class:
            h = np.concatenate([h, rows_of(problem, ys) * targets], axis=1)
        inputs, signs = [], []
        for name in names:
            inputs.append(h)
            h = h @ params[f"{name}.weight"].T + params[f"{name}.bias"]
            signs.append(h > 0 if name != names[-1] else np.ones_like(h))
            h = h * signs[-1]
        (context,) = context_name(problem)
        ones = rows_of(problem, ys) if problem.method.by_class else np.ones((len(h), 1))
        used = ones / ones.sum(axis=0) if pooled is np.mean else ones
        g = problem.gradient(params | {context: (used.T @ h).ravel()}, xq, yq)
        dh = (used if share else ones) @ g[context].reshape(ones.shape[1], -1)
        own = {context: 0 * g[context]}
        for name, x, sign in zip(names[::-1], inputs[::-1], signs[::-1], strict=True):
            dh = dh * sign
            own |= {f"{name}.weight": dh.T @ x, f"{name}.bias": dh.sum(axis=0)}
            dh = dh @ params[f"{name}.weight"]
        return {name: own[name] if name in own else g[name] for name in params}

    return mean_of(task_gradient)


def encoder_layers(params):
    """encoder.0, encoder.2, ..."""
    return [n.removesuffix(".weight") for n in params
            if n.startswith("encoder.") and n.endswith("weight")]  # fmt: skip
