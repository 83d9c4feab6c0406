"""iMAML: gradient descent on the regularised loss, then conjugate gradients."""

from dataclasses import dataclass
from typing import Any

from arithmetic import adapting, added, dot, mapped, moved, tasks_of
from libraries import LIBRARIES
from slip import RIGHT, Slip


@dataclass(frozen=True)
class Implicit:
    """fn(problem, params, batch): (I + H/lambda) u = grad g(phi*), by CG.

    system   the matrix's product with v, from (v, Hv, lambda)
    inner    what is added to the inner gradient, from (phi, theta, lambda)
    at       "solution" or "start": where H is taken; query_at: the query gradient
    scale    the answer's factor, from lambda
    CG       how many iterations; None: until the residual is rounding
    """

    library: str
    system: Any = None
    inner: Any = None
    at: str = "solution"
    query_at: str = "solution"
    scale: Any = None
    CG: int | None = None
    slip: Slip = RIGHT

    @property
    def __name__(self):
        return "drawn"

    def __call__(self, problem, params, batch):
        lib, tasks, total = LIBRARIES[self.library](problem), tasks_of(batch), None
        for t, task in enumerate(tasks):
            u = self.task_gradient(problem, lib, dict(params), (*task, *tasks[t - 1]))
            u = mapped(lambda a: a / len(tasks), u)
            total = u if total is None else mapped(lambda a, b: a + b, total, u)
        return mapped(lib.stopped, self.slip.meta(total, lib))

    def pull(self, phi, theta, strength):
        """The gradient of the proximal term."""
        return self.inner(phi, theta, strength) if self.inner else strength * (phi - theta)

    def task_gradient(self, problem, lib, theta, task):
        """u of one task."""
        method, slip = problem.method, self.slip
        strength, mask = method.regularization, adapting(problem, lib, theta)
        x, y = task[:2] if slip.support is None else slip.support(task, 0, lib)
        xq, yq = task[2:4] if slip.query is None else slip.query(task, lib)
        phi = theta
        for _ in range(slip.steps(method.inner_steps)):
            g = mapped(lib.stopped, lib.gradient(dict(phi), x, y))
            g = mapped(lambda a, p, t, m: m * (a + self.pull(p, t, strength)), g, phi, theta, mask)
            phi = mapped(lib.stopped, moved(phi, method.inner_lr, g))
        at = dict(phi if self.at == "solution" else theta)
        to = dict(phi if self.query_at == "solution" else theta)
        b = mapped(lib.stopped, lib.gradient(to, xq, yq))

        def matrix(v):
            Hv = mapped(lambda a, m: lib.stopped(a) * m, lib.product(at, x, y, v), mask)
            system = self.system or (lambda v, Hv, s: v + Hv / s)
            return mapped(lambda a, h: system(a, h, strength), v, Hv)

        masked = mapped(lambda a, m: a * m, b, mask)
        u = conjugate_gradients(matrix, masked, self.CG)
        u = mapped(lambda a, full, m: a + full * (1 - m), u, b, mask)
        return u if self.scale is None else mapped(lambda a: a * self.scale(strength), u)


def conjugate_gradients(matrix, b, iterations):
    """x with matrix(x) = b, until the residual is rounding."""
    x, r, p = mapped(lambda a: a * 0, b), b, b
    start = rr = float(dot(r, r))
    for _ in range(iterations or 200):
        if rr <= 1e-32 * start or rr == 0:
            break
        Ap = matrix(p)
        alpha = rr / float(dot(p, Ap))
        x, r = added(x, alpha, p), added(r, -alpha, Ap)
        rr, old = float(dot(r, r)), rr
        p = added(r, rr / old, p)
    return x
