"""Meta-gradients as people write them, with a place for one mistake.

    Loop          the inner loop in PyTorch or JAX, and autodiff through it
    Recursion     the loop forward and its adjoint backward, written out, with gradients
                  and products of any library; plain gradient descent
    Implicit      iMAML (implicit.py); Displacement: Reptile (displacement.py)

A `Slip` is the mistake: one of its fields replaces one line. The code shares nothing
with the doctor's own recursions but the problem that it is given.
"""

from dataclasses import dataclass

from arithmetic import adapting, mapped, moved, split, tasks_of
from inner_rules import direction
from libraries import LIBRARIES
from slip import RIGHT, Slip


@dataclass(frozen=True)
class Loop:
    """fn(problem, params, batch) by autodiff through the loop, with one Slip.

    library   "torch" or "jax"
    order     1: every inner step is stopped (first-order MAML)
    stopped_gradient  order 1: only the gradient in it is
    detached  the rule's state, or the clipping factor, is stopped
    """

    library: str
    slip: Slip = RIGHT
    order: int = 2
    detached: bool = False
    stopped_gradient: bool = False

    @property
    def __name__(self):
        return "drawn"

    def __call__(self, problem, params, batch):
        lib, tasks = LIBRARIES[self.library](problem), tasks_of(batch)

        def objective(params):
            losses, last = [], None
            for t, task in enumerate(tasks):
                others = tasks[(t + 1) % len(tasks)]
                value, last = self.task_loss(problem, lib, params, (*task, *others), last)
                losses.append(value)
            total = sum(losses) / len(losses)
            return total if self.slip.total is None else self.slip.total(losses)

        found = lib.outer_gradient(objective, params)
        return self.slip.meta(found, lib)

    def task_loss(self, problem, lib, params, task, last):
        """(the outer loss of one task, phi_K)."""
        method, slip = problem.method, self.slip
        theta, learned = split(params)
        mask = adapting(problem, lib, theta)
        phi = start = theta if slip.start is None else slip.start(theta, last, lib)
        state, phis = {}, [phi]
        xq, yq = task[2:4] if slip.query is None else slip.query(task, lib)
        K = slip.steps(getattr(method, "inner_steps", 0))
        for k in range(K):
            x, y = task[:2] if slip.support is None else slip.support(task, k, lib)
            at = phi if slip.point is None else slip.point(phi, start, k)
            g = lib.gradient(at, x, y)
            g = mapped(lib.stopped, g) if self.order == 1 else g
            g = slip.gradient(mapped(lambda a, m: a * m, g, mask), at, start, lib, k)
            d, state = direction(method.rule, at, g, state, k + 1, lib, self.detached)
            d = d if self.order == 2 or self.stopped_gradient else mapped(lib.stopped, d)
            alpha = slip.rate(rate_of(method, learned, mask, k), problem, k)
            after = moved(phi, alpha, d)
            phi = after if slip.step is None else slip.step(phi, after, start, lib)
            phis.append(phi)
        if slip.losses is not None:
            return slip.losses([lib.loss(p, xq, yq) for p in phis]), phi
        return weighted_loss(method, lib, phis, xq, yq), phi


def rate_of(method, learned, mask, k):
    """The step size of step k: a number, or learned ones by name."""
    if not learned:
        alpha = method.inner_lr
        alpha = alpha[k] if isinstance(alpha, tuple) else alpha
        return mapped(lambda m: m * alpha, mask)
    per_step = next(iter(learned.values())).ndim == 1 and type(method).__name__ == "MAMLPlusPlus"
    if per_step:
        k = min(k, method.inner_steps - 1)
        return {n: mask[n] * learned[n][k] if n in learned else mask[n] * 0 for n in mask}
    return {n: mask[n] * learned[n] if n in learned else mask[n] * 0 for n in mask}


def weighted_loss(method, lib, phis, xq, yq):
    """g(phi_K); MAML++: the weighted losses after each step."""
    if type(method).__name__ != "MAMLPlusPlus" or len(phis) == 1:
        return lib.loss(phis[-1], xq, yq)
    K = method.inner_steps
    weights = method.loss_weights or (1 / K,) * K
    return sum(w * lib.loss(p, xq, yq) for w, p in zip(weights, phis[1:], strict=False))


# ---- the recursion, written out ------------------------------------------------------


@dataclass(frozen=True)
class Recursion:
    """fn(problem, params, batch): lam_k = lam_{k+1} - H(phi_k) (alpha lam_{k+1})."""

    library: str
    slip: Slip = RIGHT
    order: int = 2

    @property
    def __name__(self):
        return "drawn"

    def __call__(self, problem, params, batch):
        lib, tasks, total, last = LIBRARIES[self.library](problem), tasks_of(batch), None, None
        for t, task in enumerate(tasks):
            task = (*task, *tasks[(t + 1) % len(tasks)])
            lam, last = self.task_gradient(problem, lib, dict(params), task, last)
            lam = mapped(lambda a: a / len(tasks), lam)
            total = lam if total is None else mapped(lambda a, b: a + b, total, lam)
        return mapped(lib.stopped, self.slip.meta(total, lib))

    def task_gradient(self, problem, lib, theta, task, last):
        """(lam_0 of one task, phi_K)."""
        method, slip = problem.method, self.slip
        mask = adapting(problem, lib, theta)
        phi = start = theta if slip.start is None else slip.start(theta, last, lib)
        path, K = [], slip.steps(method.inner_steps)
        for k in range(K):
            x, y = task[:2] if slip.support is None else slip.support(task, k, lib)
            g = mapped(lambda a, m: lib.stopped(a) * m, lib.gradient(dict(phi), x, y), mask)
            g = slip.gradient(g, phi, start, lib, k)
            alpha = slip.rate(mapped(lambda m: m * method.inner_lr, mask), problem, k)
            path.append((phi, x, y, alpha))
            phi = mapped(lib.stopped, moved(phi, alpha, g))
        xq, yq = task[2:4] if slip.query is None else slip.query(task, lib)
        lam = mapped(lib.stopped, lib.gradient(dict(phi), xq, yq))
        for k in slip.back(list(range(K - 1, -1, -1))):
            if self.order == 1:
                break
            at, x, y, alpha = path[k]
            v = mapped(lambda a, b: a * b, alpha, lam)
            after = path[k + 1][0] if k + 1 < K else phi
            Hv = slip.product(lib.product(at, x, y, v), v, (at, after, x, y, task), lib)
            lam = mapped(lambda a, b: lib.stopped(a - b), lam, Hv)
        return lam, phi
