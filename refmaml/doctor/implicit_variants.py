"""iMAML with every choice a field of `Implicit`, so that a mistake is a field changed.

(a I + c H / l) u = grad g(phi),  phi = argmin f + (m/2) |phi - theta|^2
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
                     beta p; ("scaled", m, c): steps of |r|^2 / (c p'Ap);
                     ("neumann", n, a): a sum_{j <= n} (I - a A)^j b
    inner_steps      steps of gradient descent in place of the solution; None: solved
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
    inner_steps: int | None = None
    support: str = "support"
    query: str = "query"
    kernels: str = ""
    query_kernels: str = ""
    tasks: str = "all"


class System(NamedTuple):
    """The linear system of all tasks.

    product  v (T, P) -> A v, A = a I + c H / l on what adapts
    H        v -> c H v / l
    b        (T, P), the right-hand side: q on what adapts
    q        (T, P), the query gradient
    adapts   (P,), whether a parameter adapts
    """

    product: Any
    H: Any
    b: np.ndarray
    q: np.ndarray
    adapts: np.ndarray

    def rows(self, u):
        """The meta-gradients (T, P) of a solution u: parameters that do not adapt get
        q - H u."""
        return u if self.adapts.all() else u + ~self.adapts * (self.q - self.H(u))


def implicit_rows(case, variant):
    """u of each task as `variant` has it, (T, P)."""
    if variant.curvature == 0:
        return query_gradient(case, variant)[1]
    system = linear_system(case, variant)
    return system.rows(solve(system.product, system.b, case.method, variant.solver))


def query_gradient(case, variant):
    """(phi*, q) of all tasks, each (T, P)."""
    net = network(case, variant.kernels)
    x, y = data(case, variant.support)
    start = np.broadcast_to(case.theta, (len(x), len(case.theta)))
    phi = inner_solution(net, case.method, case.theta, x, y, variant)
    point = phi if variant.query_at == "solution" else start
    query_net = network(case, variant.query_kernels)
    return phi, query_net.primal(point, *data(case, variant.query), keep=False).grad


def network(case, kernels):
    """The case's net, with wrong kernels where these are named."""
    return case.net.with_kernels(WRONG[kernels](case.net.kernels)) if kernels else case.net


def linear_system(case, variant):
    """The System as `variant` has it."""
    method, theta = case.method, case.theta
    phi, q = query_gradient(case, variant)
    net, (x, y) = network(case, variant.kernels), data(case, variant.support)
    primal = net.primal(
        phi if variant.at == "solution" else np.broadcast_to(theta, phi.shape), x, y
    )
    adapts = adapting(method, case.net).astype(bool)
    scale = variant.curvature / (variant.outer * method.regularization + variant.extra)

    def H(v):
        return scale * getattr(net, variant.product)(primal, v)

    return System(lambda v: variant.identity * v + adapts * H(v), H, adapts * q, q, adapts)


def inner_solution(net, method, theta, x, y, variant):
    """phi* (T, P), or where gradient descent ends that is stopped, or has no proximal
    term."""
    if variant.inner_steps is not None:
        adapts = adapting(method, net)
        phi = np.broadcast_to(theta, (len(x), len(theta)))
        for _ in range(variant.inner_steps):
            g = net.primal(phi, x, y, keep=False).grad + method.regularization * (phi - theta)
            phi = phi - method.inner_lr * adapts * g
        return phi
    if variant.prox:
        changed = replace(method, regularization=variant.inner * method.regularization)
        return changed.solve(net, theta, x, y)[0]
    phi = np.broadcast_to(theta, (len(x), len(theta)))
    for _ in range(method.inner_steps):
        phi = phi - method.inner_lr * net.primal(phi, x, y, keep=False).grad
    return phi


def solve(product, b, method, solver):
    """The linear system, by right or wrong conjugate gradients."""
    if solver == "exact":
        return conjugate_gradients(product, b, method.cg_steps, method.cg_tol).x
    kind, iterations, *factor = solver
    if kind == "neumann":
        return neumann_series(product, b, iterations, *factor)
    if kind == "stopped":
        return conjugate_gradients(product, b, iterations, 0).x
    iterations = iterations or method.cg_steps
    return wrong_conjugate_gradients(product, b, iterations, kind == "beta", *factor)


def neumann_series(product, b, terms, step):
    """a sum_{j <= n} (I - a A)^j b: n terms beyond the first."""
    v = total = b
    for _ in range(terms):
        v = v - step * product(v)
        total = total + v
    return step * total


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
