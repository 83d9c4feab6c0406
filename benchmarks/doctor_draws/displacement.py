"""Reptile: the mean over tasks of theta - phi_K."""

from dataclasses import dataclass
from typing import Any

from arithmetic import adapting, mapped, moved, tasks_of
from inner_rules import direction
from libraries import LIBRARIES
from slip import RIGHT, Slip


@dataclass(frozen=True)
class Displacement:
    """fn(problem, params, batch): Reptile's mean of theta - phi_K.

    result  from (theta, phi_K); None: theta - phi_K
    """

    library: str
    slip: Slip = RIGHT
    result: Any = None

    @property
    def __name__(self):
        return "drawn"

    def result_of(self, theta, phi):
        """One array of the answer."""
        return theta - phi if self.result is None else self.result(theta, phi)

    def __call__(self, problem, params, batch):
        lib, tasks, total, last = LIBRARIES[self.library](problem), tasks_of(batch), None, None
        method, slip = problem.method, self.slip
        mask = adapting(problem, lib, params)
        for t, task in enumerate(tasks):
            task = (*task, *tasks[(t + 1) % len(tasks)])
            phi = start = dict(params) if slip.start is None else slip.start(params, last, lib)
            state = {}
            for k in range(slip.steps(method.inner_steps)):
                x, y = task[:2] if slip.support is None else slip.support(task, k, lib)
                at = phi if slip.point is None else slip.point(phi, start, k)
                g = mapped(lambda a, m: lib.stopped(a) * m, lib.gradient(dict(at), x, y), mask)
                g = slip.gradient(g, at, start, lib, k)
                d, state = direction(method.rule, at, g, state, k + 1, lib)
                alpha = slip.rate(mapped(lambda m: m * method.inner_lr, mask), problem, k)
                phi = mapped(lib.stopped, moved(phi, alpha, d))
            last = phi
            off = mapped(lambda a, b: self.result_of(a, b) / len(tasks), params, phi)
            total = off if total is None else mapped(lambda a, b: a + b, total, off)
        return mapped(lib.stopped, slip.meta(total, lib))
