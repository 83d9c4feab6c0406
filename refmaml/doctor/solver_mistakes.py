"""Mistakes in the solver of iMAML's linear system, with fitted numbers: a Neumann
series of n terms and step a, conjugate gradients that stop after m iterations or go
wrong.

The search is on the cheapest case on which the gradient is wrong, where A is a dense
matrix. What fits there is confirmed on every case with products alone.
"""

from typing import NamedTuple

import numpy as np

from refmaml.doctor import scale_factors
from refmaml.doctor.fitted_mistakes import explain_by_fit
from refmaml.doctor.implicit_variants import Implicit, linear_system, solve
from refmaml.doctor.matching import (
    ACCEPTED,
    SEARCH_TIME,
    Explanation,
    candidate_or_nothing,
    cost,
    fit_scale,
    misfit_of_truth,
)
from refmaml.doctor.mistakes import Mistake, fix
from refmaml.doctor.mistakes.family import plain

DENSE = 400  # parameters up to which A is made dense: 400 products at most
MOST_TERMS, MOST_ITERATIONS, MOST_STEPS = 400, 30, 60
STEPS = np.geomspace(0.01, 2.0, 60)  # of a Neumann series: where its search starts
STEP_FACTORS = np.geomspace(0.05, 4.0, 40)  # of a step of CG: where its search starts
GOLDEN = (np.sqrt(5) - 1) / 2
PROMISE = 8  # rounds of a golden section after which a root shows
BEST = 3  # local minima of a grid that are refined
SOLVE = fix(
    "CG until the residual is small: x += a p, r -= a A p with one a = |r|^2 / p'Ap; "
    "p = r_new + (|r_new|^2 / |r|^2) p"
)
SERIES = fix(
    "a sum_j (I - a A)^j q with A = I + H / lambda, a in front, each term from the one before "
    "it, until the terms are small; or conjugate gradients"
)
INNER = fix("iterate until |grad f + lambda (phi - theta)| is small")


class Solver(NamedTuple):
    """A wrong solver: its row, name and fix, and the changed fields of Implicit."""

    row: str
    name: str
    changes: dict
    fix: dict


def explain_by_solver(cases, grads, seconds_left=lambda: SEARCH_TIME):
    """[Explanation] of a wrong solver or of another wrong number of iMAML, the cheapest
    search first."""
    pairs = sorted(zip(cases, grads, strict=True), key=lambda pair: cost(pair[0]))
    wrong = [pair for pair in pairs if misfit_of_truth(*pair) > 1]
    if not wrong:
        return []
    search = Search(*wrong[0])
    return (
        first_confirmed(pairs, (search.stopped, search.old_residual), seconds_left)
        or explain_by_fit(cases, grads, seconds_left)
        or first_confirmed(pairs, (search.series, search.inner, search.scaled), seconds_left)
    )


def first_confirmed(pairs, searches, seconds_left):
    """[Explanation] of the first searches that find a solver which explains every
    case.
    """
    for tried in searches:
        found = [e for solver in tried(seconds_left) for e in confirmed(pairs, solver)]
        if found or seconds_left() <= 0:
            return found
    return []


def confirmed(pairs, solver):
    """[Explanation] of a Solver if it explains every case, with a factor that has a
    name; else []."""
    fits = []
    for case, g in pairs:
        c = candidate_or_nothing(case, lambda: solver.changes)
        if c is None or (fit := fit_scale(case, g, c)).misfit > ACCEPTED:
            return []
        fits.append(fit)
    named = scale_factors.name_of([case for case, _ in pairs], [f.scale for f in fits])
    if named is None:
        return []
    text, is_one = named
    mistake = Mistake(solver.row, solver.name, None, solver.fix)
    if in_front_missing(solver, fits[0].scale):
        mistake = mistake._replace(name=f"{solver.name}, without its step size in front")
        is_one = True
    return [Explanation((mistake,), "" if is_one else text, max(f.misfit for f in fits))]


def in_front_missing(solver, scale):
    """Whether the factor of a series is one over its step size."""
    kind, *_, step = solver.changes.get("solver", ("", 1))
    return kind == "neumann" and step != 1 and abs(scale * step - 1) < 1e-9


def missing_step(explanations):
    """The same [Explanation], in front a Neumann series without its step size where the
    right gradient times a number > 1 that is no known quantity is explained.

    A series that has converged is A^-1 / a."""
    first = explanations[0]
    if first.mistakes or not is_number(first.scale) or float(first.scale) <= 1:
        return explanations
    step = plain(float(f"{1 / float(first.scale):.6g}"))
    name = f"a Neumann series without its step size {step} in front: the right gradient"
    return [first._replace(mistakes=(Mistake("35", name, None, SERIES),)), *explanations]


def is_number(text):
    """Whether a factor's text is a plain number."""
    try:
        return float(text) not in (2.0, 0.5)
    except ValueError:
        return False


class Search:
    """The search on one case, with its linear system."""

    def __init__(self, case, g):
        self.case, self.g = case, g / case.allowed
        self.system = linear_system(case, Implicit())
        T, P = self.system.b.shape
        w = np.ones(T) if case.weights is None else case.weights
        self.scale = w[:, None] / (T * case.allowed)
        self.product, self.spectrum = self.system.product, None
        if P <= DENSE:
            columns = [self.product(np.broadcast_to(e, (T, P))) for e in np.eye(P)]
            A = np.stack(columns, axis=2)
            A = (A + A.transpose(0, 2, 1)) / 2
            self.product = lambda v: (A @ v[:, :, None])[:, :, 0]
            self.spectrum = self.spectrum_of(A)

    def spectrum_of(self, A):
        """(s (T P,), W (M, T P), c (M,)): eigenvalues, and what f(A) b of all tasks
        gives as a gradient over what rounding allows: W f(s) + c."""
        s, V = np.linalg.eigh(A)
        b = np.einsum("tij,ti->tj", V, self.system.b)
        c = self.system.rows(np.zeros_like(b))
        parts = [self.system.rows(V[:, :, j] * b[:, j : j + 1]) - c for j in range(s.shape[1])]
        W = np.stack(parts, axis=2) * self.scale[:, :, None]
        return (
            s.ravel(),
            W.transpose(1, 0, 2).reshape(len(self.g), -1),
            (self.scale * c).sum(axis=0),
        )

    def misfit(self, u):
        """That of a solution u (T, P) of all tasks, up to a factor."""
        return float(self.misfits((self.scale * self.system.rows(u)).sum(axis=0)[None])[0])

    def misfits(self, c):
        """Those of gradients c (n, M) over what rounding allows; a misfit of inf where
        a gradient is not finite or 0."""
        with np.errstate(all="ignore"):
            squares = (c * c).sum(axis=1)
            s = (c @ self.g) / squares
            found = np.abs(self.g - s[:, None] * c).max(axis=1)
        return np.where(np.isfinite(found) & (squares > 0), found, np.inf)

    def solved(self, solver):
        """u of a solver."""
        return solve(self.product, self.system.b, self.case.method, solver)

    def iterations(self):
        """Numbers of iterations of CG that are tried."""
        return range(1, min(self.case.method.cg_steps, MOST_ITERATIONS) + 1)

    def stopped(self, seconds_left):
        """CG after m iterations."""
        for m in self.iterations():
            if m == self.case.method.cg_steps or seconds_left() <= 0:
                return
            solver = ("stopped", m)
            if self.misfit(self.solved(solver)) <= ACCEPTED:
                name = f"CG stops after {m} iteration{'s' * (m > 1)}"
                yield Solver("35", name, {"solver": solver}, SOLVE)
                return

    def old_residual(self, seconds_left):
        """CG whose directions start from the residual before the step."""
        for m in self.iterations():
            solver = ("beta", m)
            if seconds_left() > 0 and self.misfit(self.solved(solver)) <= ACCEPTED:
                name = f"CG's directions start from the old residual{self.after(m)}"
                yield Solver("33", name, {"solver": solver}, SOLVE)
                return

    def scaled(self, seconds_left):
        """CG whose steps are too long."""
        for m in self.iterations():
            if seconds_left() <= 0:
                return
            for c in self.refined(STEP_FACTORS, lambda c, m=m: self.of_scaled(m, c)):
                if abs(c - 1) > 1e-6:
                    name = f"CG's step is {plain(simple(1 / c))} times too long{self.after(m)}"
                    yield Solver("34", name, {"solver": ("scaled", m, c)}, SOLVE)
                    return

    def of_scaled(self, m, factors):
        """The misfits of CG with steps of these factors."""
        return np.array([self.misfit(self.solved(("scaled", m, c))) for c in factors])

    def after(self, m):
        """How many iterations CG has, where the method has another number."""
        return "" if m == self.case.method.cg_steps else f", {m} iterations"

    def series(self, seconds_left):
        """A Neumann series of n terms and step a."""
        if self.spectrum is None:
            return
        for n in range(1, MOST_TERMS + 1):
            if seconds_left() <= 0:
                return
            for a in self.refined(STEPS, lambda a, n=n: self.of_series(n, a)):
                yield Solver("35", series_name(n, a), {"solver": ("neumann", n, a)}, SERIES)
                return

    def of_series(self, n, steps):
        """The misfits of series of n terms: (1 - (1 - a s)^(n + 1)) / s on eigenvalues
        s.
        """
        s, W, c = self.spectrum
        with np.errstate(over="ignore", invalid="ignore"):
            f = (1 - (1 - np.asarray(steps)[:, None] * s) ** (n + 1)) / s
            return self.misfits(f @ W.T + c)

    def inner(self, seconds_left):
        """An inner problem that is left after m steps of gradient descent."""
        for m in range(1, min(self.case.method.inner_steps, MOST_STEPS)):
            c = candidate_or_nothing(self.case, lambda m=m: {"inner_steps": m})
            if seconds_left() <= 0 or c is None:
                return
            if self.misfits(c[None] / self.case.allowed)[0] <= ACCEPTED:
                name = f"the inner problem is left after {m} gradient step{'s' * (m > 1)}"
                yield Solver("27", name, {"inner_steps": m}, INNER)
                return

    def refined(self, grid, misfits_of):
        """[x] at the noise floor: local minima of the misfit on a grid, refined by
        golden sections, and rounded where that is as good."""
        misfits = misfits_of(grid)
        padded = np.concatenate([[np.inf], misfits, [np.inf]])
        lowest = [i for i in range(len(grid)) if padded[i + 1] <= min(padded[i], padded[i + 2])]
        found = []
        for i in sorted(lowest, key=lambda i: misfits[i])[:BEST]:
            ends = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
            x = golden_section(lambda x: misfits_of(np.array([x]))[0], *ends, misfits[i])
            if x is not None and misfits_of(np.array([simple(x)]))[0] <= ACCEPTED:
                found.append(simple(x))
        return found


def series_name(n, a):
    """A Neumann series in words and as a formula."""
    if (n, a) == (1, 1.0):
        return (
            "2 q - A q stands for the solution: a Neumann series of 1 term, or an estimate that "
            "is never replaced"
        )
    terms = f"{n} term{'s' * (n > 1)}"
    power = "(I - A)^j q" if a == 1 else f"(I - {plain(a)} A)^j q"
    return f"a Neumann series of {terms}, step {plain(a)}: sum_(j <= {n}) {power}"


def golden_section(f, low, high, start, rounds=80):
    """The minimum of f between two ends, to rounding; None where it is no root.

    At a root the largest error falls with the distance. So after PROMISE rounds, which
    leave 1/50 of the interval, it must be below a fifth of f at the start.
    """
    a, b = low, high
    x, y = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    fx, fy = f(x), f(y)
    for step in range(rounds):
        if b - a <= 1e-15 * abs(b):
            break
        if step == PROMISE and min(fx, fy) > 0.2 * start:
            return None
        if fx <= fy:
            b, y, fy = y, x, fx
            x = b - GOLDEN * (b - a)
            fx = f(x)
        else:
            a, x, fx = x, y, fy
            y = a + GOLDEN * (b - a)
            fy = f(y)
    return x if fx <= fy else y


def simple(x):
    """x, or the number of 4 digits that differs from it by less than 1e-9."""
    short = float(f"{x:.4g}")
    return short if abs(short - x) <= 1e-9 * abs(x) else x
