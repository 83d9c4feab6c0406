"""What another x solves: a scaled or damped system; or an iterate, a series."""

from typing import NamedTuple

import numpy as np

from refmaml.checks.factors import number_text

TERMS = 200  # of a Neumann series, at most
GRID = 2000  # trial step sizes, between which a sign change is sought
FIT = 1e-6  # relative: how well a name must explain x
FAULTS = {
    "cg": "of conjugate gradients",
    "steepest": "of steepest descent (directions are not conjugate: beta is missing)",
    "old residual": "of conjugate gradients with p = r_old + beta p (the old residual)",
}


class Path(NamedTuple):
    """What conjugate gradients do with a system from x_0 = 0.

    count       iterations that were run; converged: after which |r| <= tol |b|, or 0
    match       (fault, iteration) of the iterate that x is, or None
    curvature   the smallest p'A p / p'p, relative to the largest; below 0: indefinite
    drift       |r - (b - A x)| / |b| at the end of plain conjugate gradients, or None
    """

    count: int
    converged: int
    match: tuple | None
    curvature: float
    drift: float | None


def conjugate_gradient_path(system, most):
    """The Path; x is compared with each iterate, also of the FAULTS."""
    match, plain = None, None
    for fault in FAULTS:
        run = iterates(system, fault, min(most, 4 * system.n))
        plain = plain or run
        match = match or ((fault, run["match"]) if run["match"] else None)
    seen = plain["curvatures"] + [probe(system, v) for v in (*system.exam.vectors, system.x)]
    seen = [c for c in seen if np.isfinite(c)]
    largest = max(map(abs, seen), default=1.0) or 1.0
    least = min(seen, default=0.0) / largest
    if least > -(np.finfo(float).eps ** 0.5):  # rounding of a singular A is not indefinite
        least = max(least, 0.0)
    return Path(plain["count"], plain["converged"], match, least, plain["drift"])


def probe(system, v):
    """v'A v / v'v, or NaN at 0."""
    below = float(v @ v)
    return float(v @ system.apply(v)) / below if below else float("nan")


def iterates(system, fault, most):
    """Run one solver; what it showed, as a dict of Path's fields."""
    b, x, close = system.b, np.zeros(system.n), FIT * float(np.linalg.norm(system.x))
    r, p = b.copy(), b.copy()
    out = {"count": 0, "converged": 0, "match": 0, "curvatures": [], "drift": None}
    for i in range(1, most + 1):
        Ap = system.apply(p)
        curvature, rr = float(p @ Ap), float(r @ r)
        out["curvatures"].append(curvature / float(p @ p))
        if curvature <= 0 or not np.isfinite(curvature):
            break
        x, old = x + rr / curvature * p, r
        r = r - rr / curvature * Ap
        out["count"] = i
        if not out["match"] and system.x.any() and np.linalg.norm(x - system.x) <= close:
            out["match"] = i
        if np.linalg.norm(r) <= 0.1 * system.tol * system.size:
            out["converged"] = i
            break
        beta = 0.0 if fault == "steepest" else float(r @ r) / rr
        p = (old if fault == "old residual" else r) + beta * p
        if not p.any():
            break
    if out["count"]:
        out["drift"] = float(np.linalg.norm(r - (b - system.apply(x)))) / system.size
    return out


def named(system, path):
    """(text, fix) of what x is, or ("", "")."""
    if not system.x.any():
        return "x is 0: no iteration was made", "begin with r = p = b, and iterate"
    if path.match is not None:
        return early(system, path)
    return combination(system) or series(system) or transposed(system) or ("", "")


def early(system, path):
    """The name of an early iterate."""
    fault, i = path.match
    text = f"x is iterate {i} {FAULTS[fault]}"
    if not system.exam.is_symmetric():
        return (
            f"{text}, which do not apply: the product is not symmetric",
            "repair the product (rm.check_hvp), or use GMRES or BiCGSTAB",
        )
    if fault != "cg":
        return text, "r' r / r_old' r_old times p, plus the new r, is the next direction"
    needed = f", {path.converged} reach {system.tol:.0e}" if path.converged else ""
    return (
        f"stopped early: {text}, where |b - A x| is {system.error:.1e} of |b|",
        f"more iterations{needed}; or a smaller tolerance",
    )


def combination(system):
    """The name of an x with c A x + d x = b, or None."""
    d0, columns = system.damping, [system.Ax, system.x]
    for chosen in ((0,), (0, 1)):
        a = np.stack([columns[i] for i in chosen], axis=1)
        found = np.linalg.lstsq(a, system.b, rcond=None)[0]
        if np.linalg.norm(a @ found - system.b) > FIT * system.size:
            continue
        c, d = (*map(float, found), 0.0)[:2]
        if len(chosen) == 1:
            return scaled(1 / c)
        return shifted(c, d, d0)
    return None


def scaled(s):
    """x = s times the solution."""
    if abs(s + 1) <= FIT:
        return "x has the wrong sign", "change the sign of x, or of b"
    text = f"x is {number_text(s)} times the solution"
    fix = (
        f"divide x by {number_text(s)}; a factor lambda, or a Neumann series without its step "
        f"size ({number_text(1 / s)}) in front, gives this"
    )
    return text, fix


def shifted(c, d, declared):
    """x solves (c A + d I) x = b; A includes the damping that was declared."""
    total = c * declared + d
    if abs(c - 1) <= 10 * FIT:
        beside = f", where damping={declared:g} is declared" if declared else ""
        text = f"x solves (A + d I) x = b with the damping d = {number_text(total)}{beside}"
        return text, f"damping={total:.6g} if it is meant; otherwise leave it out"
    text = f"x solves (c A + d I) x = b with c = {number_text(c)} and d = {number_text(total)}"
    return text, "(I + H / lambda) and (H + lambda I) differ by the factor lambda"


# ---- Neumann series ------------------------------------------------------------------


def series(system):
    """The name of x = a sum_{j < m} (I - a A)^j b, or of the sum without a; or None.

    In the eigenvectors of A, 1 - l x_i / b_i = (1 - a l)^m for each eigenvalue l.
    """
    if system.matrix is None or not system.exam.is_symmetric():
        return None
    eigenvalues, vectors = np.linalg.eigh((system.matrix + system.matrix.T) / 2)
    b, x = vectors.T @ system.b, vectors.T @ system.x
    largest = np.abs(eigenvalues).max() or 1.0
    trial = np.geomspace(1e-4, 2.5, GRID) / largest
    pivot = int(np.argmax(np.abs(b * eigenvalues)))
    for m in range(1, TERMS + 1):
        for in_front in (True, False):
            for a in steps(m, in_front, eigenvalues[pivot], x[pivot] / b[pivot], trial):
                value = partial_sum(eigenvalues, a, m) * b * (a if in_front else 1.0)
                if np.linalg.norm(value - x) <= FIT * np.linalg.norm(x):
                    return series_text(m, a, in_front)
    return None


def partial_sum(eigenvalues, a, m):
    """sum_{j < m} (1 - a l)^j for each eigenvalue l."""
    q, total = 1 - a * eigenvalues, np.zeros_like(eigenvalues)
    for _ in range(m):
        total = 1 + q * total
    return total


def steps(m, in_front, eigenvalue, ratio, trial):
    """The step sizes a for which the pivot's component is right."""

    def gap(a):
        front = a if in_front else 1.0
        q = 1 - a * eigenvalue
        return front * (1 - q**m) / (1 - q) - ratio

    values = gap(trial)
    for k in np.flatnonzero(np.sign(values[1:]) != np.sign(values[:-1])):
        low, high = trial[k], trial[k + 1]
        for _ in range(80):
            middle = (low + high) / 2
            if np.sign(gap(middle)) == np.sign(gap(low)):
                low = middle
            else:
                high = middle
        yield (low + high) / 2


def series_text(m, a, in_front):
    """The name and the fix of a Neumann series."""
    terms = f"{m} term{'s' if m > 1 else ''}"
    if not in_front:
        return (
            f"x is a Neumann series of {terms} with step {number_text(a)}, without the step in "
            "front of the sum",
            f"multiply by {number_text(a)}, and take more terms",
        )
    text = f"x is a Neumann series of {terms} with step {number_text(a)}, not the solution"
    fix = "take more terms, or a larger step below 2 / |A|"
    if m == 2:
        fix = "an estimate that is never replaced gives this: est = b + est - A est"
    return text, fix


def transposed(system):
    """The name of an x with A' x = b, or None."""
    if system.matrix is None:
        return None
    if np.linalg.norm(system.matrix.T @ system.x - system.b) <= FIT * system.size:
        return "x solves A' x = b: A is transposed", "use the product with A, not with A'"
    return None
