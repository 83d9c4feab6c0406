"""Solved heads, ALPaCA and CNP by autograd in PyTorch, right and wrong.

Every choice that a mistake changes is an argument.
"""

from functools import cache

import numpy as np

from refmaml.oracles.solved_heads import at_bounds


def tasks(batch):
    return list(zip(*batch, strict=True))


def rows_of(problem, y, dtype):
    """Targets (N, C): numbers, or labels as unit vectors."""
    import torch

    if y.dtype.is_floating_point:
        return y
    return torch.eye(problem.net.layers[-1].out_features, dtype=dtype)[y]


def last_layer(problem):
    return f"{problem.net.names[-1]}.weight", f"{problem.net.names[-1]}.bias"


def meta_gradient(task_loss, count=None):
    """A function of (problem, params, batch) from the loss of one task."""

    def gradient(problem, params, batch):
        import torch

        theta = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        losses = [task_loss(problem, theta, *task) for task in tasks(batch)]
        total = torch.stack(losses[:count]).sum() / len(losses)
        found = torch.autograd.grad(total, list(theta.values()), materialize_grads=True)
        return dict(zip(theta, found, strict=True))

    return gradient


# ---- heads ---------------------------------------------------------------------------


def ridge(X, Y, lam, problem, inverse=True):
    """W (C, F)."""
    import torch

    A = X.T @ X + lam * torch.eye(X.shape[1], dtype=X.dtype)
    A = A if inverse else A.detach()
    return torch.linalg.solve(A, X.T @ Y).T


def newton_step(W, X, Y, lam, curvature=True):
    """W after a full Newton step for each class; C is the first axis."""
    import torch

    Mu = torch.sigmoid(X @ W.T)
    G = (Mu - Y).T @ X + lam * W
    S = Mu * (1 - Mu)
    H = torch.einsum("nf,nc,ng->cfg", X, S, X) + lam * torch.eye(X.shape[1], dtype=X.dtype)
    H = H if curvature else H.detach()
    return W - torch.linalg.solve(H, G[..., None])[..., 0]


def logistic(X, Y, lam, problem, steps=None, implicit=False):
    """Newton's method, differentiated through, or at its last point."""
    import torch

    W = torch.zeros(Y.shape[1], X.shape[1], dtype=X.dtype)
    for _ in range(steps or 14):
        W = newton_step(W, X, Y, lam)
    if not implicit:
        return W
    after = newton_step(W.detach(), X, Y, lam, curvature=False)
    return W.detach() + after - after.detach()


@cache
def known_bounds(X, Y, shape, lam, cost):
    """Which entries are at their bounds, from SciPy's optimiser."""
    N, F, C = shape
    X, Y = np.frombuffer(X).reshape(N, F), np.frombuffer(Y).reshape(N, C)
    return at_bounds(X, Y, lam, cost)


def svm(X, Y, lam, problem, cost=None, still=True):
    """The dual's solution by one system of the entries that are not at their bounds."""
    import torch

    cost = problem.method.cost if cost is None else cost
    (N, F), C = X.shape, Y.shape[1]
    as64 = [a.detach().double().numpy() for a in (X, Y)]
    fixed = known_bounds(
        *(np.ascontiguousarray(a).tobytes() for a in as64), (N, F, C), float(lam.detach()), cost
    )
    Z = dual(X, Y, lam, cost, torch.tensor(fixed))
    if not still:
        moving = dual(X, Y, lam, cost, torch.zeros(N * C, dtype=bool), Z.detach())
        Z = Z.detach() + moving - moving.detach()
    return Z.T @ X


def dual(X, Y, lam, cost, fixed, at=None):
    """Z (N, C); at: a point whose step to the unbounded solution is differentiated."""
    import torch

    (N, C), free = Y.shape, ~fixed
    G = torch.kron(X @ X.T + lam * torch.eye(N, dtype=X.dtype), torch.eye(C, dtype=X.dtype))
    A = torch.kron(torch.eye(N, dtype=X.dtype), torch.ones(1, C, dtype=X.dtype))
    z = torch.where(fixed, cost * Y.reshape(-1), torch.zeros(N * C, dtype=X.dtype))
    system = torch.cat([
        torch.cat([G[free][:, free], A[:, free].T], dim=1),
        torch.cat([A[:, free], torch.zeros(N, N, dtype=X.dtype)], dim=1),
    ])  # fmt: skip
    if at is None:
        right = torch.cat([(Y.reshape(-1) - G @ z)[free], -A @ z])
        step = torch.linalg.solve(system, right)[: free.sum()]
    else:
        right = torch.cat([-(G @ at.reshape(-1)), torch.zeros(N, dtype=X.dtype)])
        step = torch.linalg.solve(system.detach(), right)[: free.sum()]
    z = z.clone()
    z[free] = step
    return z.reshape(N, C)


def of_head(solve, count=None, lam=None, factor=1.0, detached=False, still=False, scaled=True,
            signs=False, swapped=False, unsolved=False, **options):  # fmt: skip
    """The meta-gradient of a solved head.

    lam  (ell, N) -> lambda; None: e^ell
    """

    def task_loss(problem, theta, xs, ys, xq, yq):
        if swapped:
            xs, ys, xq, yq = xq, yq, xs, ys
        if unsolved:
            return problem.loss(theta, xq, yq)
        X = problem.features(theta, xs)
        Y = rows_of(problem, ys, X.dtype)
        Y = 2 * Y - 1 if signs else Y
        if problem.method.intercept:
            X = torch_ones(X)
        ell, alpha, beta = (theta[f"head.{n}"] for n in ("log_strength", "scale", "shift"))
        strength = ell.exp() if lam is None else lam(ell, len(X))
        W = factor * solve(X, Y, strength, problem, **options)
        W = W.detach() if detached else W
        V = alpha * W if scaled else W
        weight, bias = last_layer(problem)
        frozen = {n: p.detach() if still else p for n, p in theta.items()}
        intercepts = 0
        if problem.method.intercept:
            V, intercepts = V[:, :-1], V[:, -1]
        phi = frozen | {weight: V}
        if bias in problem.net.shapes:
            phi[bias] = beta.expand(len(W)) + intercepts
        return problem.loss(phi, xq, yq)

    return meta_gradient(task_loss, count)


def torch_ones(X):
    """X with a column of ones."""
    import torch

    return torch.cat([X, torch.ones(len(X), 1, dtype=X.dtype)], dim=1)


# ---- ALPaCA --------------------------------------------------------------------------


def alpaca(kind="", count=None):
    """The meta-gradient of ALPaCA; `kind` names what is wrong."""

    def task_loss(problem, theta, xs, ys, xq, yq):
        import torch

        X, Q = (problem.features(theta, x) for x in (xs, xq))
        Y, Yq = (rows_of(problem, y, X.dtype) for y in (ys, yq))
        weight, bias = last_layer(problem)
        W0, L, v = theta[weight], theta["prior.factor"], theta["log_noise"].exp()
        if bias in problem.net.shapes:
            X, Q = torch_ones(X), torch_ones(Q)
            W0 = torch.cat([W0, theta[bias][:, None]], dim=1)
        Q = Q.detach() if kind == "query features" else Q
        W0 = 0 * W0 if kind == "zero mean" else W0
        precision = L @ L.T * (v if kind == "bare prior" else 1)
        A = X.T @ X + precision
        W = torch.linalg.solve(A, (Y.T @ X + (W0 if kind == "bare mean" else W0 @ precision)).T).T
        s = 1 + (Q * torch.linalg.solve(A, Q.T).T).sum(1)
        if kind == "posterior":
            W, s = W.detach(), 1 + (Q * torch.linalg.solve(A.detach(), Q.T).T).sum(1)
        s = torch.ones_like(s) if kind == "noise alone" else s
        s = s.detach() if kind == "fixed spread" else s
        e2, C = ((Yq - Q @ W.T) ** 2).sum(1), Y.shape[1]
        if kind == "squared error":
            return e2.mean() / 2
        logs = {"no log": 0, "one log": 1}.get(kind, C)
        return (logs * torch.log(v * s) + e2 / (v * s)).mean() / 2

    return meta_gradient(task_loss, count)


# ---- CNP -----------------------------------------------------------------------------


def encoded(problem, theta, inputs):
    """h of each example (N, S)."""
    import torch

    names = [n.removesuffix(".weight") for n in theta
             if n.startswith("encoder.") and n.endswith("weight")]  # fmt: skip
    h = inputs
    for place, name in enumerate(names):
        h = h @ theta[f"{name}.weight"].T + theta[f"{name}.bias"]
        h = torch.relu(h) if place < len(names) - 1 else h
    return h


def context_name(problem):
    """The parameter that r replaces, and those in turn where there are several."""
    return [name for name in problem.net.shapes if problem.net.mask(("context",))[
        problem.net.parameters.slices[name]].any()]  # fmt: skip


def pooled(H, kind):
    """One vector of the outputs H (N, S)."""
    if kind == "share":
        return H.mean(0).detach() + H.sum(0) - H.sum(0).detach()
    return {"sum": H.sum(0), "last": H[-1]}.get(kind, H.mean(0))


def cnp(kind="", count=None):
    """The meta-gradient of a CNP; `kind` names what is wrong."""

    def task_loss(problem, theta, xs, ys, xq, yq):
        import torch

        if kind == "unused":
            return problem.loss(theta, xq, yq)
        xr, yr = (xq, yq) if kind == "query" else (xs, ys)
        if kind == "both":
            xr, yr = torch.cat([xs, xq]), torch.cat([ys, yq])
        x = xr.reshape(len(xr), -1)
        if problem.method.by_class:
            H = encoded(problem, theta, x)
            classes = range(problem.net.layers[-1].out_features)
            r = torch.cat([pooled(H[yr == c], kind) for c in classes])
        else:
            Y = rows_of(problem, yr, xr.dtype)
            Y = 0 * Y if kind == "blind" else Y
            r = pooled(encoded(problem, theta, torch.cat([x, Y], dim=1)), kind)
        r = r.detach() if kind == "detached" else r
        (name,) = context_name(problem)
        return problem.loss(theta | {name: r.reshape(problem.net.shapes[name])}, xq, yq)

    return meta_gradient(task_loss, count)
