"""The SVM's dual as OptNet's code solves and differentiates it, on dense KKT systems.

min 1/2 z'Qz + p'z,  z <= h,  A z = 0. A KKT system has the unknowns (z, s, lam, nu), as
the paper writes it: nothing is eliminated.
"""

from functools import partial

import torch

EPS, LEAST, SHORT = 1e-12, 1e-8, 0.999


def kkt_solve(Q, A, s, lam, right):
    """(dz, ds, dlam, dnu) of the right sides (rx, rs, rh, ra); rs belongs to s lam."""
    n, m = len(Q), len(A)
    eye, zero = torch.eye(n, dtype=Q.dtype), torch.zeros(n, n, dtype=Q.dtype)
    side = torch.zeros(m, n, dtype=Q.dtype)
    system = torch.cat([
        torch.cat([Q, zero, eye, A.T], dim=1),
        torch.cat([zero, torch.diag(lam), torch.diag(s), side.T], dim=1),
        torch.cat([eye, eye, zero, side.T], dim=1),
        torch.cat([A, side, side, torch.zeros(m, m, dtype=Q.dtype)], dim=1),
    ])  # fmt: skip
    found = torch.linalg.solve(system, torch.cat(right))
    return found.split([n, n, n, m])


def to_bound(a, da):
    falls = da < 0
    return (-a[falls] / da[falls]).min() if falls.any() else torch.tensor(torch.inf)


def optimum(Q, p, h, A, maxiter, eps):
    """(z, s, lam) where the iterations end."""
    ones, none = torch.ones_like(h), torch.zeros(len(A), dtype=Q.dtype)
    z, s, lam, nu = kkt_solve(Q, A, ones, ones, (-p, 0 * h, h, none))
    s, lam = (a + 1 - a.min() if a.min() < 0 else a for a in (s, lam))
    for _ in range(maxiter - 1):
        rx, rh, mu = Q @ z + p + lam + A.T @ nu, z + s - h, (s @ lam) / len(s)
        if rx.norm() + rh.norm() + s @ lam < eps:
            break
        _, ds, dlam, _ = kkt_solve(Q, A, s, lam, (-rx, -s * lam, -rh, none))
        t = torch.clamp(torch.minimum(to_bound(s, ds), to_bound(lam, dlam)), max=1)
        sigma = ((s + t * ds) @ (lam + t * dlam) / (s @ lam)) ** 3
        rs = -s * lam - ds * dlam + sigma * mu
        dz, ds, dlam, dnu = kkt_solve(Q, A, s, lam, (-rx, rs, -rh, none))
        t = torch.clamp(SHORT * torch.minimum(to_bound(s, ds), to_bound(lam, dlam)), max=1)
        z, s, lam, nu = z + t * dz, s + t * ds, lam + t * dlam, nu + t * dnu
    return z, s, lam


def from_inside(Q, p, h, A, steps, cost):
    """(z, s, lam) after so many steps of refmaml's own method; see svm_solver.py."""
    N, none = len(A), torch.zeros(len(A), dtype=Q.dtype)
    z = (h - cost * N / len(h)) / 2
    s, lam, nu = h - z, torch.full_like(h, cost), none
    for _ in range(steps):
        rx, mu = Q @ z + p + lam + A.T @ nu, (s @ lam) / len(s)
        _, ds, dlam, _ = kkt_solve(Q, A, s, lam, (-rx, -s * lam, 0 * h, none))
        t = [torch.clamp(0.99 * to_bound(a, da), max=1) for a, da in ((s, ds), (lam, dlam))]
        after = ((s + t[0] * ds) @ (lam + t[1] * dlam)) / len(s)
        rs = -s * lam - ds * dlam + mu * (after / mu) ** 3
        dz, ds, dlam, dnu = kkt_solve(Q, A, s, lam, (-rx, rs, 0 * h, none))
        t = [torch.clamp(0.99 * to_bound(a, da), max=1) for a, da in ((s, ds), (lam, dlam))]
        z, s, lam, nu = z + t[0] * dz, s + t[0] * ds, lam + t[1] * dlam, nu + t[1] * dnu
    return z, s, lam


class StoppedDual(torch.autograd.Function):
    """z of (Q, p, h, A), where solve(Q, p, h, A) stops."""

    @staticmethod
    def forward(ctx, Q, p, h, A, solve, least):
        z, s, lam = solve(Q, p, h, A)
        ctx.save_for_backward(Q, A, z, s, lam)
        ctx.least = least
        return z

    @staticmethod
    def backward(ctx, dz):
        Q, A, z, s, lam = ctx.saved_tensors
        s, lam, zero = s.clamp(min=ctx.least), lam.clamp(min=ctx.least), torch.zeros_like(z)
        none = torch.zeros(len(A), dtype=Q.dtype)
        b, *_ = kkt_solve(Q, A, s, lam, (-dz, zero, zero, none))
        return (torch.outer(b, z) + torch.outer(z, b)) / 2, b, None, None, None, None


def svm_until(maxiter, least=LEAST, eps=EPS):
    """A solver for `of_head`, W (C, F): that of OptNet's code."""
    return svm_by(lambda *problem, cost: optimum(*problem, maxiter, eps), least)


def svm_after(steps):
    """The same of refmaml's method after so many steps."""
    return svm_by(lambda *problem, cost: from_inside(*problem, steps, cost), 0.0)


def svm_by(solve, least):
    def svm(X, Y, lam, problem):
        (N, C), dtype, cost = Y.shape, X.dtype, problem.method.cost
        K = X @ X.T + lam * torch.eye(N, dtype=dtype)
        Q = torch.kron(K, torch.eye(C, dtype=dtype))
        A = torch.kron(torch.eye(N, dtype=dtype), torch.ones(1, C, dtype=dtype))
        y = Y.reshape(-1)
        z = StoppedDual.apply(Q, -y, cost * y, A, partial(solve, cost=cost), least)
        return z.reshape(N, C).T @ X

    return svm
