"""Is the derivative in a hyperparameter right: a step size, lambda, a ridge?

Beside the value of the derivative, its variable is asked for: dM/dlambda and
dM/dlog lambda = lambda dM/dlambda are both in use, and a step size that is
softplus(raw) or exp(raw) brings a factor with it.
"""

from typing import NamedTuple

import numpy as np

from refmaml.checks.calls import (
    LossAndGradient,
    Scope,
    check_function,
    check_settings,
    in_either_order,
    same_as_bound,
    scalar,
)
from refmaml.checks.chain_factors import named_factor
from refmaml.checks.directions import derivative
from refmaml.checks.gradient import COARSE, noise_report
from refmaml.checks.report import CheckReport, Row, verdict_of
from refmaml.checks.trees import Tree, framework_of, is_number, mapped
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG
from refmaml.errors import expect
from refmaml.version import __version__

MOST = 64  # hyperparameters; each is moved alone
SMALLEST = 1e-3  # a hyperparameter that is 0 is moved by parts of this
TINY = 1e-30  # the complex step: no difference is taken, so it may be as small as this
BY = ("differences", "complex step")
OTHERS = (1.3, 0.7)  # further values, relative: a named factor must explain them too


def check_hypergradient(
    fn, values, *, method=None, net=None, theta=None, batch=None, by="differences", tol=None,
    precision="float64", seed=0,
):  # fmt: skip
    """Whether fn's derivatives in some hyperparameters are right, as a CheckReport.

    fn        fn(values) -> (gradient, loss), or (loss, gradient); the gradient has the
              structure of values. Further names in it are not read
    values    a number, or numbers in any container: {"inner_lr": 0.1}
    method, net, theta, batch   a method of refmaml, and what its meta_gradient takes:
              fn is compared with its hypergradients (hyper=True) at the method's own
              values, and may return the gradient alone. values then is a dict with
              names such as "inner_lr", "regularization", "momentum"
    by        "differences", of 4th order, or "complex step", where fn computes its loss
              with complex values: exact to rounding
    tol, precision, seed   as in check_gradient
    A wrong derivative is tried at other values too, and named: the sign, a constant, a
    derivative in log(value), a factor exp'(raw) or softplus'(raw) that is missing.
    "inconclusive": a kink, or a loss that changes from call to call.
    Raises ArgumentError in one line for other arguments and for what fn raises.

    >>> import refmaml as rm
    >>> rm.check_hypergradient(lambda lam: (3 * lam**2, lam**3), 0.7).ok
    True
    """
    tol = check_settings(precision, tol, seed)
    expect(by in BY, "by", f"one of {', '.join(BY)}", lambda: repr(by))
    given = [part is not None for part in (method, net, theta, batch)]
    expect(all(given) or not any(given), "method", "method, net, theta and batch", "some of them")
    with Scope(values):
        problem = LossAndGradient(fn, values, None, precision, "values")
        count = len(problem.tree.start)
        expect(count <= MOST, "values", f"at most {MOST} numbers", f"{count}")
        if method is not None:
            report = against_method(fn, values, (method, net, theta, batch), tol)
            problem.calls += 1
        else:
            report = in_either_order(problem, lambda: examined(Hyperparameters(problem, tol, by)))
    report.about.update(
        calls=problem.calls,
        seed=seed,
        precision=precision,
        versions={"refmaml": __version__, "numpy": np.__version__},
    )
    return report


class Entry(NamedTuple):
    """One hyperparameter at one value: got and expected derivative, and how exactly."""

    value: float
    got: float
    expected: float
    uncertainty: float
    jump: float = 0.0

    def error(self):
        """|got - expected|, relative to the larger."""
        return abs(self.got - self.expected) / (max(abs(self.got), abs(self.expected)) or 1.0)

    def allowed(self, tol):
        """What tol and the uncertainty allow of that."""
        return max(tol, self.uncertainty / (max(abs(self.got), abs(self.expected)) or 1.0))


class Hyperparameters:
    """The user's function, examined one number at a time."""

    def __init__(self, problem, tol, by):
        self.problem, self.tol, self.by = problem, tol, by
        self.tree, self.vector = problem.tree, problem.tree.start
        self.gradient, self.loss = problem(self.vector)
        self.names = [
            leaf.name or "value" if not leaf.shape else f"{leaf.name or 'value'}{list(index)}"
            for leaf in self.tree.leaves
            for index in np.ndindex(leaf.shape)
        ]

    def entry(self, i, times=1.0):
        """The Entry of number i, where it is `times` its value."""
        at = self.vector.copy()
        at[i] *= times
        gradient, loss = (self.gradient, self.loss) if times == 1.0 else self.problem(at)
        if self.by == "complex step":
            slope, unsure = self.complex_step(at, i), 0.0
            return Entry(float(at[i]), float(gradient[i]), slope, unsure)
        v = np.zeros_like(at)
        v[i] = max(abs(at[i]), SMALLEST)
        d = derivative(
            lambda s: self.problem.loss(at + s * v), loss, precision=self.problem.precision
        )
        numbers = d.value, d.uncertainty, d.jump
        return Entry(at[i], gradient[i], *(float(number) / v[i] for number in numbers))

    def complex_step(self, at, i):
        """Im loss(values + i h e_i) / h."""
        built, places, count = self.tree.build(at), iter(self.tree.leaves), []

        def turned(name, leaf):
            place = next(places).place
            expect(
                is_number(leaf) or framework_of(leaf) == "numpy",
                "values",
                "Python's numbers or NumPy arrays for the complex step",
                lambda: type(leaf).__name__,
            )
            count.append(name)
            shift = np.zeros(place.stop - place.start, complex)
            if place.start <= i < place.stop:
                shift[i - place.start] = 1j * TINY
            return complex(leaf + shift[0]) if is_number(leaf) else leaf + shift.reshape(leaf.shape)

        value = self.problem.fn(mapped(built, turned))
        expect(
            isinstance(value, tuple | list) and len(value) == 2, "fn", "(gradient, loss)", "else"
        )
        return float(np.imag(loss_of(value))) / TINY


def loss_of(pair):
    """The loss of a pair in either order: the one that is complex and a number."""
    first, second = pair
    return second if np.ndim(second) == 0 and not isinstance(second, dict) else first


def examined(exam):
    """The CheckReport of a function that returns its loss too."""
    noise = noise_report(exam)
    if noise is not None:
        return CheckReport("hypergradient", noise.verdict, noise.diagnosis, noise.fix,
                           rows=noise.rows)  # fmt: skip
    entries = [exam.entry(i) for i in range(len(exam.vector))]
    rows = tuple(
        row_of(name, entry, exam.tol) for name, entry in zip(exam.names, entries, strict=True)
    )

    def more(i):
        return [exam.entry(i, times) for times in OTHERS]

    return concluded(rows, entries, more)


def row_of(name, entry, tol):
    """The Row of one hyperparameter."""
    error, allowed = entry.error(), entry.allowed(tol)
    factor = entry.got / entry.expected if entry.expected else float("nan")
    remark = f"got {entry.got:.10g}, expected {entry.expected:.10g}"
    scale = max(abs(entry.got), abs(entry.expected)) or 1.0
    if entry.jump > tol * scale:
        return Row(name, error, allowed, factor, INCONCLUSIVE, f"a kink; {remark}")
    verdict = WRONG if error > allowed else RIGHT
    if verdict == RIGHT and allowed > COARSE:
        verdict = INCONCLUSIVE
    return Row(name, error, allowed, factor, verdict, remark)


def concluded(rows, entries, more, extra=()):
    """The CheckReport of the rows; wrong ones get a name.

    more   i -> further Entries of hyperparameter i, at other values
    extra  further rows
    """
    verdict = verdict_of((*rows, *extra))
    shown = (*rows, *extra)
    if verdict == RIGHT:
        worst = max(row.error for row in rows if row.verdict == RIGHT)
        text = f"the derivatives are right, to {worst:.1e}"
        return CheckReport("hypergradient", RIGHT, text, rows=shown)
    if verdict == INCONCLUSIVE:
        text = "the loss has a kink, or is not smooth or exact enough here"
        return CheckReport("hypergradient", INCONCLUSIVE, text, "pass other values", rows=shown)
    wrong = [i for i, row in enumerate(rows) if row.verdict == WRONG]
    if not wrong:
        text = "the loss differs from the method's"
        return CheckReport("hypergradient", WRONG, text, rows=shown)
    named = {rows[i].name: named_factor([entries[i], *more(i)]) for i in wrong}
    texts = list(dict.fromkeys(text for text, _ in named.values()))
    if len(texts) == 1 and texts[0]:
        text = f"the derivative in {', '.join(named)} {texts[0]}"
        return CheckReport("hypergradient", WRONG, text, next(iter(named.values()))[1], rows=shown)
    findings = tuple(f"{name}: the derivative {text}" for name, (text, _) in named.items() if text)
    text = f"wrong in {', '.join(named)}"
    fix = "differentiate through every step in which the value is used, the solution included"
    return CheckReport("hypergradient", WRONG, text, fix, findings, shown)


# ---- against a method of refmaml -----------------------------------------------------


def against_method(fn, values, of, tol):
    """The CheckReport of fn beside the hypergradients of a method."""
    method, net, theta, batch = of
    form = "{name: value} beside method="
    expect(isinstance(values, dict), "values", form, lambda: type(values).__name__)
    out = method.meta_gradient(net, theta, batch, hyper=True)
    unknown = [name for name in values if name not in out.hyper]
    expect(not unknown, "values", f"some of {', '.join(out.hyper)}", lambda: repr(unknown[0]))
    check_function(fn, "fn", "fn(values)")
    same_as_bound(fn, "fn(values)", "fn", (1,))
    tree = Tree(values, "values")
    gradient, loss = split(fn(tree.build(tree.start)))
    got, _ = tree.flat(gradient, "gradient")
    truth, _ = tree.flat({name: np.asarray(out.hyper[name], float) for name in values}, "hyper")
    names = [
        leaf.name if not leaf.shape else f"{leaf.name}{list(index)}"
        for leaf in tree.leaves
        for index in np.ndindex(leaf.shape)
    ]
    entries = [Entry(*map(float, entry), 0.0) for entry in zip(tree.start, got, truth, strict=True)]
    rows = tuple(row_of(name, e, tol) for name, e in zip(names, entries, strict=True))
    extra = () if loss is None else (loss_row(scalar(loss, "loss"), float(out.loss), tol),)
    return concluded(rows, entries, lambda i: [], extra)


def split(value):
    """(gradient, loss or None) of what fn returned."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        return value, None
    first, second = value
    return (second, first) if isinstance(second, dict) else (first, second)


def loss_row(got, expected, tol):
    """The Row of the loss."""
    error = abs(got - expected) / (max(abs(got), abs(expected)) or 1.0)
    factor = got / expected if expected else float("nan")
    return Row("loss", error, tol, factor, RIGHT if error <= tol else WRONG)
