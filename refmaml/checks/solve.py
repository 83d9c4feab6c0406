"""A linear solve that is wrong or slow: is it the product, or the solver?"""

import numpy as np

from refmaml.checks import hvp_properties, solve_names
from refmaml.checks.calls import Scope, check_function, check_settings
from refmaml.checks.hvp import Product
from refmaml.checks.report import CheckReport, Row, judged
from refmaml.checks.trees import framework_of, is_number
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG
from refmaml.errors import expect
from refmaml.version import __version__

VECTORS = 3
DENSE = 256  # unknowns up to which the matrix is formed column by column
ITERATIONS = 400  # of conjugate gradients, to compare iterates


def check_solve(
    product, b, x, *, damping=0.0, residual=None, tol=None, precision="float64", seed=0
):
    """Whether x solves A x = b, and if not, whether product or solver is at fault.

    product    v -> A v; v and the result have the structure of b, or are flat vectors
    b, x       right-hand side and the solver's answer: numbers in any container
    damping    d, where (A + d I) x = b is meant and product is A alone
    residual   the residual b - A x as the solver reports it, or its norm: compared with
               the true one
    tol        the largest |b - A x| / |b| (default 1e-6, in float32 1e-3)
    precision, seed   as in check_gradient
    Rows: the product's properties, the residual, the distance from the solution (up to
    256 unknowns), definiteness, and how far the residual of conjugate gradients drifts.
    An x that solves another system is named: a scale, a damping, an iterate of
    conjugate gradients, a Neumann series with its step and number of terms.
    Raises ArgumentError in one line for other arguments and for what product raises.

    >>> import numpy as np, refmaml as rm
    >>> A = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> b = np.array([1.0, 2.0])
    >>> rm.check_solve(lambda v: A @ v, b, np.linalg.solve(A, b)).ok
    True
    """
    tol = check_settings(precision, tol, seed)
    check_function(product, "product", "product(v)")
    expect(is_number(damping), "damping", "a number", lambda: repr(damping))
    with Scope(b, x):
        user = Product(product, b, None, precision)
        expect(user.tree.start.any(), "b", "a vector other than 0", "0")
        expect(user.arguments == 1, "product", "a function product(v)", "one of more arguments")
        solution, _ = user.tree.flat(x, "x")
        expect(np.isfinite(solution).all(), "x", "finite numbers", "NaN or infinity")
        exam = hvp_properties.Properties(user, VECTORS, tol, seed)
        system = System(user, solution, damping, tol, exam)
        report = examined(system, given_residual(user.tree, residual))
    report.about.update(
        calls=user.calls,
        seed=seed,
        precision=precision,
        versions={"refmaml": __version__, "numpy": np.__version__},
    )
    return report


def given_residual(tree, residual):
    """The reported residual's norm as a float, or its vector, or None."""
    if residual is None or is_number(residual):
        return residual
    if framework_of(residual) and not tuple(residual.shape):
        return float(residual)
    return tree.flat(residual, "residual")[0]


class System:
    """A x = b with the user's product and answer; all vectors are (n,).

    matrix   A + damping I, (n, n), or None where n > DENSE
    """

    def __init__(self, user, x, damping, tol, exam):
        self.user, self.b, self.x = user, user.tree.start, x
        self.damping, self.tol, self.exam = damping, tol, exam
        self.n, self.matrix = len(x), None
        self.Ax = self.apply(x)
        self.r = self.b - self.Ax
        self.size = float(np.linalg.norm(self.b))
        self.error = float(np.linalg.norm(self.r)) / self.size
        self.sound = exam.report() is None
        if self.sound and self.n <= DENSE:
            self.matrix = np.stack([self.apply(e) for e in np.eye(self.n)], axis=1)

    def apply(self, v):
        """(A + damping I) v."""
        return self.user(v) + self.damping * v

    def best(self):
        """(solution, condition number).

        (None, None) where the matrix is not known; no solution where it is singular.
        """
        if self.matrix is None:
            return None, None
        condition = float(np.linalg.cond(self.matrix))
        if condition > 1 / np.finfo(float).eps:
            return None, condition
        return np.linalg.solve(self.matrix, self.b), condition


def examined(system, reported):
    """The CheckReport."""
    product = system.exam.report()
    if product is not None:
        text = f"it is the product: {product.diagnosis}"
        return CheckReport("solve", product.verdict, text, product.fix, rows=product.rows)
    path = solve_names.conjugate_gradient_path(system, ITERATIONS)
    rows, remarks = solve_rows(system, path)
    drift = drift_row(system, reported)
    rows += [drift] if drift else []
    if system.error <= system.tol:
        return solved(system, rows, remarks, drift)
    text, fix = solve_names.named(system, path)
    if drift is not None and drift.verdict == WRONG:
        text = (
            f"the solver's residual has drifted: it says {norm(reported) / system.size:.1e}, "
            f"b - A x is {system.error:.1e} of |b|"
        )
        fix = "compute r = b - A x anew every 50 iterations, and before stopping"
    if not text:
        text, fix = at_fault(system, path)
    return CheckReport("solve", WRONG, text, fix, (), tuple(rows), tuple(remarks))


def solved(system, rows, remarks, drift):
    """The report of an x that solves its system."""
    if drift is not None and drift.verdict == WRONG:
        text = "x solves A x = b, but the residual that the solver reports is not b - A x"
        fix = "compute r = b - A x anew before reporting it"
        return CheckReport("solve", WRONG, text, fix, (), tuple(rows), tuple(remarks))
    text = f"x solves {system_text(system)}, |b - A x| is {system.error:.1e} of |b|"
    rows = [row if row.verdict == RIGHT else row._replace(verdict=INCONCLUSIVE) for row in rows]
    return CheckReport("solve", RIGHT, text, rows=tuple(rows), remarks=tuple(remarks))


def system_text(system):
    """The system as a formula."""
    return f"(A + {system.damping:g} I) x = b" if system.damping else "A x = b"


def norm(residual):
    """|r| of a reported residual."""
    return float(residual) if is_number(residual) else float(np.linalg.norm(residual))


def solve_rows(system, path):
    """(rows, remarks) of the system: residual, solution, definiteness, drift."""
    rows = [*system.exam.rows, judged("|b - A x| / |b|", system.error, system.tol)]
    remarks, (best, condition) = [], system.best()
    if best is not None:
        error = float(np.linalg.norm(system.x - best) / np.linalg.norm(best))
        allowed = system.tol * max(1.0, condition)
        row = judged("|x - solution| / |solution|", error, allowed)
        rows.append(row._replace(remark=f"condition number {condition:.1e}"))
    if path.curvature < 0:
        name = "positive definite"
        rows.append(Row(name, -path.curvature, 0.0, float("nan"), WRONG, "v'A v < 0 for some v"))
        remarks.append("A is indefinite: conjugate gradients do not apply (MINRES does)")
    elif path.drift is not None:
        rows.append(judged("drift of conjugate gradients", path.drift, system.tol))
    return rows, remarks


def drift_row(system, reported):
    """The Row of the residual that the solver reports, or None."""
    if reported is None:
        return None
    if is_number(reported):
        error = abs(reported - np.linalg.norm(system.r)) / system.size
    else:
        error = float(np.linalg.norm(reported - system.r)) / system.size
    return judged("the residual as reported", error, system.tol)


def at_fault(system, path):
    """(text, fix) for an x without a name: is it the product or the solver?"""
    wrong = f"x does not solve {system_text(system)}: |b - A x| is {system.error:.1e} of |b|"
    if not system.exam.is_symmetric():
        return (
            f"{wrong}; the product is not symmetric, so conjugate gradients do not apply",
            "repair the product (rm.check_hvp), or use GMRES or BiCGSTAB",
        )
    if path.curvature < 0:
        return (
            f"{wrong}; A is indefinite, so conjugate gradients do not apply",
            "add damping, use Gauss-Newton, or use MINRES",
        )
    if path.converged:
        return (
            f"{wrong}; it is the solver: plain conjugate gradients solve this in "
            f"{path.converged} iterations",
            "compare the solver with Hestenes and Stiefel's, line by line (rm.conjugate_gradients)",
        )
    return (
        f"{wrong}; conjugate gradients do not solve it in {path.count} iterations either",
        "add damping or a preconditioner",
    )
