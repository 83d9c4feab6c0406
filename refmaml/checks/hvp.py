"""Is a Hessian-vector product right: linear, symmetric, and of which matrix?"""

import numpy as np

from refmaml.checks import directions, hvp_properties, matrices
from refmaml.checks.batch_weights import batch_products, checked_batches, weights_of_batches
from refmaml.checks.calls import (
    Scope,
    called,
    check_function,
    check_settings,
    lengths_of,
    same_as_bound,
)
from refmaml.checks.factors import fix_of, meaning, number_text
from refmaml.checks.report import CheckReport, judged
from refmaml.checks.trees import Tree, in_precision, is_number
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG
from refmaml.errors import expect
from refmaml.version import __version__

VECTORS = 3  # random vectors: a factor and a damping must explain them all
KINDS = {"hessian": "the Hessian", "gauss_newton": "Gauss-Newton", "fisher": "the empirical Fisher"}
FORM = "product(v), product(params, v) or product(params, v, batch)"


def check_hvp(
    product, params, batch=None, *, gradient=None, loss=None, outputs=None, output_loss=None,
    example_losses=None, batches=None, kind="hessian", damping=0.0, tol=None,
    precision="float64", seed=0,
):  # fmt: skip
    """Whether v -> A v is the product that it should be, as a CheckReport.

    product         product(v), product(params, v) or product(params, v, batch); v and
                    the result have the structure of params, or are flat vectors
    params          where A is taken: numbers in any container, as in check_gradient
    batch           the data; anything
    gradient        gradient(params, batch) or gradient(params): the first derivatives.
                    A v is compared with their differences. A pair with the loss is
                    taken too
    loss            loss(params, batch), in place of gradient, for PyTorch and JAX
    outputs, output_loss   outputs(params, batch) -> z, output_loss(z, batch) -> number:
                    A is also compared with the Gauss-Newton matrix
    example_losses  example_losses(params, batch) -> (N,): A is also compared with the
                    empirical Fisher information
    batches         a list of batches in place of batch: A is then the mean over all of
                    their examples
    kind            what A is meant to be: "hessian", "gauss_newton" or "fisher"
    damping         d, where A = H + d I is meant
    tol, precision, seed   as in check_gradient
    Rows: repeated calls, product(0), linearity, symmetry, and each matrix it could be.
    "inconclusive": products that change from call to call, a kink at these params.
    Raises ArgumentError in one line for other arguments and for what functions raise.

    >>> import numpy as np, refmaml as rm
    >>> A = np.array([[2.0, 1.0], [1.0, 3.0]])
    >>> w = np.array([0.3, -0.2])
    >>> rm.check_hvp(lambda v: A @ v, w, gradient=lambda w: A @ w).ok
    True
    """
    tol = check_settings(precision, tol, seed)
    check_function(product, "product", FORM)
    expect(kind in KINDS, "kind", f"one of {', '.join(KINDS)}", lambda: repr(kind))
    expect(is_number(damping), "damping", "a number", lambda: repr(damping))
    both = (outputs is None) == (output_loss is None)
    expect(both, "outputs", "outputs and output_loss, both or none", "one of them")
    expect(batches is None or batch is None, "batches", "batch or batches", "both")
    data = batch if batches is None else checked_batches(batches)
    with Scope(params, data):
        user = Product(product, params, data, precision)
        exam = hvp_properties.Properties(user, VECTORS, tol, seed)
        given = Given(gradient, loss, outputs, output_loss, example_losses)
        report = examined(exam, given, data, batches is not None, kind, damping)
    report.about.update(
        calls=user.calls,
        seed=seed,
        precision=precision,
        versions={"refmaml": __version__, "numpy": np.__version__},
    )
    return report


class Given:
    """The functions that say which matrix is meant; None where not given."""

    def __init__(self, gradient, loss, outputs, output_loss, example_losses):
        for name, value in locals().items():
            if name != "self" and value is not None:
                check_function(value, name, "")
        self.gradient, self.loss, self.outputs = gradient, loss, outputs
        self.output_loss, self.example_losses = output_loss, example_losses


class Product:
    """The user's product as a function of a vector (n,)."""

    def __init__(self, fn, params, batch, precision):
        self.fn, self.batch, self.precision, self.calls = fn, batch, precision, 0
        self.tree = Tree(params, "params")
        counts = (1, 2) if batch is None else (3, 1, 2)
        self.arguments = same_as_bound(fn, FORM, "product", counts)

    def __call__(self, v):
        self.calls += 1
        built = self.tree.build(v, self.precision)
        if self.arguments == 1:
            given = [built]
        else:
            given = [self.tree.build(self.tree.start, self.precision), built]
        if self.arguments == 3:
            given.append(in_precision(self.batch, self.precision))
        value = called(self.fn, "product", "a vector", *given)
        flat, _ = self.tree.flat(value, "product")
        expect(np.isfinite(flat).all(), "product", "finite numbers", "NaN or infinity")
        return flat


def examined(exam, given, data, several, kind, damping):
    """The CheckReport: properties first, then the matrix."""
    report = exam.report()
    if report is not None:
        return report
    rows = exam.rows
    if several:
        expect(given.gradient or given.loss, "batches", "gradient= or loss= beside it", "none")
        parts = batch_products(exam, given, data)
        if parts.kinks:
            return kink_report(rows)
        found = [parts.whole]
        report = weights_of_batches(exam, parts)
        if report is not None:
            return report
    else:
        found = candidates(exam, given, data)
    if any(m.kinks for m in found):
        return kink_report(rows)
    if any(row.name == exam.JACOBIAN and row.verdict == WRONG for row in exam.rows):
        text = "the gradient given is not that of any loss: its own Jacobian is not symmetric"
        fix = "rm.check_gradient finds where it is wrong"
        return CheckReport("hvp", INCONCLUSIVE, text, fix, rows=tuple(exam.rows))
    return matched(exam, found, kind, damping)


def kink_report(rows):
    """The report where one-sided derivatives of the gradient differ."""
    return CheckReport(
        "hvp", INCONCLUSIVE, "a kink of the gradient lies at these params",
        "pass other params (moved by 1e-3)", rows=tuple(rows),
    )  # fmt: skip


def candidates(exam, given, batch):
    """A Matrix for each one that the functions given allow."""
    tree, precision, vs = exam.product.tree, exam.product.precision, exam.vectors
    found = []
    if given.gradient or given.loss:
        gradient = matrices.Gradient(given.gradient, tree, precision, given.loss)
        products, unsure, kinks = matrices.hessian_products(gradient, tree.start, batch, vs)
        exam.expect_symmetric(products, unsure)
        found.append(hessian_matrix(exam, products, unsure, kinks))
    at = tree, tree.start, batch, precision, vs, exam.products
    if given.outputs:
        found.append(matrices.gauss_newton(given.outputs, given.output_loss, *at))
    if given.example_losses:
        found.append(matrices.fisher(given.example_losses, *at))
    return found


def hessian_matrix(exam, products, unsure, kinks=False):
    """The Matrix of the Hessian from its products."""
    joined = np.concatenate
    return matrices.Matrix(
        "the Hessian", joined(products), joined(exam.vectors), joined(exam.products), unsure, kinks
    )


class Fit:
    """got = c expected + d identity: how well, with which c and d."""

    def __init__(self, matrix, tol):
        self.matrix = matrix
        self.size = max(directions.size(matrix.expected), directions.size(matrix.got)) or 1.0
        self.allowed = max(tol, matrix.uncertainty / self.size)

    def error(self, c, d):
        """The largest misfit, relative."""
        m = self.matrix
        return directions.size(m.got - c * m.expected - d * m.identity) / self.size

    def best(self, terms):
        """(c, d) by least squares, with d = 0 for one term."""
        m = self.matrix
        columns = np.stack([m.expected, m.identity][:terms], axis=1)
        found = np.linalg.lstsq(columns, m.got, rcond=None)[0]
        return (*map(float, found), 0.0)[:2]

    def row(self, damping):
        """The Row against the matrix as it should be."""
        c, _ = self.best(1)
        return judged(self.matrix.name, self.error(1.0, damping), self.allowed, c)


def matched(exam, found, kind, damping):
    """The report: the matrix that the product is, its factor and its damping."""
    fits, wanted = [Fit(m, exam.tol) for m in found], KINDS[kind]
    rows = [*exam.rows, *(compared(fit.row(damping), wanted) for fit in fits)]
    if not fits:
        if not exam.is_symmetric():
            return exam.asymmetric()
        text = "the product is repeatable, linear and symmetric"
        remark = "nothing says which matrix it is: give gradient="
        return CheckReport("hvp", RIGHT, text, rows=tuple(rows), remarks=(remark,))
    expect(any(m.name == wanted for m in found), "kind", f"the functions that {wanted} needs", kind)
    meant = next(fit for fit in fits if fit.matrix.name == wanted)
    if meant.error(1.0, damping) <= meant.allowed:
        text = f"the product is that of {wanted}{damped(damping)}"
        return CheckReport("hvp", RIGHT, text, rows=tuple(rows))
    text, fix = named(fits, meant, damping, lengths_of(exam.product.batch))
    findings = () if text else exam.wrong_arrays(meant.matrix)
    how = "" if exam.is_symmetric() else "not symmetric, and "
    text = text or f"the product is {how}not that of {wanted}"
    fix = fix or "compare its terms with the differences of the gradient, array by array"
    return CheckReport("hvp", WRONG, text, fix, findings, tuple(rows))


def compared(row, wanted):
    """The Row of a matrix; another one than `wanted` is there for comparison."""
    if row.name == wanted:
        return row
    remark = "another matrix, which it is" if row.verdict == RIGHT else "another matrix"
    return row._replace(verdict=RIGHT, remark=remark)


def damped(d):
    """ " + 0.1 I", or nothing."""
    return f" + {number_text(d)} I" if d else ""


def named(fits, meant, damping, lengths):
    """(text, fix) of a product that is a matrix times a factor plus a damping."""
    wanted = meant.matrix.name
    for terms in (1, 2):
        for fit in (meant, *(f for f in fits if f is not meant)):
            c, d = fit.best(terms)
            if fit.error(c, d) > fit.allowed or abs(c) <= fit.allowed:
                continue
            one = abs(c - 1) <= 10 * fit.allowed
            times = "" if one else f"{number_text(c)} times "
            text = f"the product is {times}{fit.matrix.name}{damped(d if terms == 2 else 0)}"
            if fit is not meant:
                return f"{text}, not {wanted}", f"kind={kind_name(fit)!r} if that is what it is for"
            if terms == 2:
                declared = f", where damping={damping:g} is declared" if damping else ""
                return text + declared, f"damping={d:.6g} if that is meant; otherwise leave it out"
            return f"{text}: {meaning(c, lengths)}", fix_of(c, "the product")
    if not meant.matrix.got.any():
        return "the product is 0", fix_of(0.0, "the second derivative")
    return "", ""


def kind_name(fit):
    """The argument kind= of a matrix."""
    return next(k for k, name in KINDS.items() if name == fit.matrix.name)
