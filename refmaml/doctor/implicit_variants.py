"""iMAML with every choice a field of `Implicit`, so that a mistake is a field changed.

(a I + c H / l) u = grad g(phi),  phi = argmin f + (m/2) |phi - theta|^2
"""

from dataclasses import dataclass, replace

import numpy as np

from refmaml.doctor.method_settings import adapting
from refmaml.doctor.unrolled_forward import data
from refmaml.doctor.wrong_kernels import WRONG
from refmaml.methods.conjugate_gradients import REFERENCE, conjugate_gradients, dot


@dataclass(frozen=True)
class Implicit:
    """The choices of iMAML.

    inner            a factor on lambda in the inner problem
    prox             whether the inner problem has its proximal term
    outer            a factor on lambda in the linear system
    extra            what is added to lambda there
    identity         the factor a of I; curvature: the factor c of H
    product          "hvp" or "gauss_newton_product"
    at, query_at     where H and the query gradient are taken: "solution" or "start"
    solver           "exact"; ("stopped", m): m iterations; ("beta", m): p = r_old +
                     beta p; ("scaled", m, c): steps of |r|^2 / (c p'Ap)
    support, query   which set the inner and the outer loss are measured on
    kernels, query_kernels     a key of WRONG
    tasks            which tasks count, as in unrolled_variants.py
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


def implicit_rows(case, variant):
    """u of each task as `variant` has it, (T, P).

    Where only some parameters adapt, their block is solved for, and the others get
    q - H u.
    """
    method, theta = case.method, case.theta
    net, query_net = (
        case.net if not name else case.net.with_kernels(WRONG[name](case.net.kernels))
        for name in (variant.kernels, variant.query_kernels)
    )
    x, y = data(case, variant.support)
    start = np.broadcast_to(theta, (len(x), len(theta)))
    phi = inner_solution(net, method, theta, x, y, variant)
    query_point = phi if variant.query_at == "solution" else start
    q = query_net.gradient(query_point, *data(case, variant.query))
    if variant.curvature == 0:
        return q
    primal = net.primal(phi if variant.at == "solution" else start, x, y)
    adapts = adapting(method, case.net).astype(bool)
    scale = variant.curvature / (variant.outer * method.regularization + variant.extra)

    def H(v):
        return scale * getattr(net, variant.product)(primal, v)

    u = solve(lambda v: variant.identity * v + adapts * H(v), adapts * q, method, variant.solver)
    return u if adapts.all() else u + ~adapts * (q - H(u))


def inner_solution(net, method, theta, x, y, variant):
    """phi* (T, P), or where gradient descent without the proximal term ends."""
    if variant.prox:
        changed = replace(method, regularization=variant.inner * method.regularization)
        return changed.solve(net, theta, x, y)[0]
    phi = np.broadcast_to(theta, (len(x), len(theta)))
    for _ in range(method.inner_steps):
        phi = phi - method.inner_lr * net.gradient(phi, x, y)
    return phi


def solve(product, b, method, solver):
    """The linear system, by right or wrong conjugate gradients."""
    if solver == "exact":
        return conjugate_gradients(product, b, method.cg_steps, method.cg_tol).x
    kind, iterations, *factor = solver
    if kind == "stopped":
        return conjugate_gradients(product, b, iterations, 0).x
    iterations = iterations or method.cg_steps
    return wrong_conjugate_gradients(product, b, iterations, kind == "beta", *factor)


def wrong_conjugate_gradients(product, b, iterations, old_residual, factor=1.0):
    """CG with a mistake.

    old_residual   the next direction starts from the residual before the step
    factor         steps are 1 / factor times too long
    """
    x, r, p = np.zeros_like(b), b, b
    for _ in range(iterations):
        Ap, rr = product(p), dot(REFERENCE, r, r)
        if not rr.all():
            break
        a = (rr / (factor * dot(REFERENCE, p, Ap)))[:, None]
        x, old, r = x + a * p, r, r - a * Ap
        p = (old if old_residual else r) + (dot(REFERENCE, r, r) / rr)[:, None] * p
    return x
