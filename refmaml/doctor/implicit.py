"""iMAML with every choice a field of `Implicit`: (a I + c H / l) u = grad g(phi), phi = argmin f + (m/2) |phi - theta|^2."""

from dataclasses import dataclass, replace

import numpy as np

from refmaml.doctor.unrolled_variants import data
from refmaml.doctor.wrong_kernels import WRONG
from refmaml.methods.conjugate_gradients import REFERENCE, conjugate_gradients, dot


@dataclass(frozen=True)
class Implicit:
    """inner         a factor on lambda in the inner problem; prox: whether it has its proximal term at all
    outer            a factor on lambda in the linear system; extra: what is added to lambda there; identity: the factor of I
    curvature        the factor of H; product: "hvp" or "gauss_newton_product"
    at, query_at     where H and the query gradient are taken: "solution" or "start"
    solver           "exact"; ("stopped", m): m iterations; ("beta", m): p = r_old + beta p; ("scaled", m, c): steps of |r|^2 / (c p'Ap)
    support, query   which set the inner and the outer loss are measured on
    kernels, query_kernels     a key of WRONG
    tasks            which tasks count, as in loop.py
    """

    inner: float = 1.0
    prox: bool = True
    outer: float = 1.0
    extra: float = 0.0
    identity: float = 1.0
    curvature: float = 1.0
    product: str = "hvp"
    at: str = "solution"
    query_at: str = "solution"
    solver: object = "exact"
    support: str = "support"
    query: str = "query"
    kernels: str = ""
    query_kernels: str = ""
    tasks: str = "all"


def implicit_rows(case, recipe):
    """u of each task as `recipe` has it, (T, P)."""
    method, theta = case.method, case.theta
    nets = [
        case.net if not name else case.net.with_kernels(WRONG[name](case.net.kernels))
        for name in (recipe.kernels, recipe.query_kernels)
    ]
    x, y = data(case, recipe.support)
    start = np.broadcast_to(theta, (len(x), len(theta)))
    phi = inner_solution(nets[0], method, theta, x, y, recipe)
    q = nets[1].gradient(phi if recipe.query_at == "solution" else start, *data(case, recipe.query))
    if recipe.curvature == 0:
        return q
    primal = nets[0].primal(phi if recipe.at == "solution" else start, x, y)
    moves = case.net.mask(method.adapts) & ~(
        case.net.mask(method.frozen) if method.frozen else np.zeros(len(theta), bool)
    )
    scale = recipe.curvature / (recipe.outer * method.regularization + recipe.extra)

    def H(v):
        return scale * getattr(nets[0], recipe.product)(primal, v)

    u = solve(lambda v: recipe.identity * v + moves * H(v), moves * q, method, recipe.solver)
    return u if moves.all() else u + ~moves * (q - H(u))


def inner_solution(net, method, theta, x, y, recipe):
    """phi* (T, P), or where plain gradient descent without the proximal term ends up."""
    if recipe.prox:
        return replace(method, regularization=recipe.inner * method.regularization).solve(
            net, theta, x, y
        )[0]
    phi = np.broadcast_to(theta, (len(x), len(theta)))
    for _ in range(method.inner_steps):
        phi = phi - method.inner_lr * net.gradient(phi, x, y)
    return phi


def solve(product, b, method, solver):
    """The linear system, by CG as it should be or as it is got wrong."""
    if solver == "exact":
        return conjugate_gradients(product, b, method.cg_steps, method.cg_tol).x
    kind, iterations, *factor = solver
    if kind == "stopped":
        return conjugate_gradients(product, b, iterations, 0).x
    return wrong_conjugate_gradients(
        product, b, iterations or method.cg_steps, kind == "beta", *factor
    )


def wrong_conjugate_gradients(product, b, iterations, old_residual, factor=1.0):
    """CG whose next direction starts from the residual before the step (old_residual), or whose steps are 1 / factor times too long."""
    x, r, p = np.zeros_like(b), b, b
    for _ in range(iterations):
        Ap, rr = product(p), dot(REFERENCE, r, r)
        if not rr.all():
            break
        a = (rr / (factor * dot(REFERENCE, p, Ap)))[:, None]
        x, old, r = x + a * p, r, r - a * Ap
        p = (old if old_residual else r) + (dot(REFERENCE, r, r) / rr)[:, None] * p
    return x
