"""Is a gradient the derivative of the loss that it came with? No net, no method.

Along a direction v, d loss(params + s v) / ds at 0 is <gradient, v>. The left side
comes from the user's own losses by differences (directions.py), the right side from the
user's gradient. What loss and gradient share, such as support examples taken for query
examples, cannot show.
"""

import numpy as np

from refmaml.checks import directions
from refmaml.checks.calls import LossAndGradient, Scope, check_settings, in_either_order, lengths_of
from refmaml.checks.factors import agreement, common, fix_of, meaning, times_text
from refmaml.checks.locate import located
from refmaml.checks.report import CheckReport, Row, verdict_of
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG
from refmaml.errors import expect
from refmaml.version import __version__

COARSE = 1e-2  # relative: differences less exact than this cannot call a gradient right
REPEATED = 3  # further calls at the same parameters
BESIDE = 1e-3  # how far to move from a kink, relative to the parameters
SHARED = "a mistake that the loss shares (other data, another number of steps) cannot show here"


def check_gradient(fn, params, batch=None, *, directions=3, tol=None, precision="float64", seed=0):
    """Whether fn's gradient is the derivative of fn's loss, as a CheckReport.

    fn          fn(params, batch) or fn(params) -> (gradient, loss), or (loss, gradient)
                as jax.value_and_grad returns it. The gradient has the structure of
                params, or is one flat vector; None counts as 0
    params      numbers in any container: a dict, list, tuple, pytree or array of NumPy,
                PyTorch, JAX or CuPy. fn gets fresh copies
    batch       anything; its floating-point arrays arrive in `precision`
    directions  how many random directions are tried
    tol         the largest relative error of a directional derivative (default 1e-6 in
                float64, 1e-3 in float32)
    precision   "float64" or "float32": of the numbers that fn receives
    seed        of the directions
    The report has a row for each direction; where one is wrong, also one for each
    array, and findings that say which entries are wrong.
    "inconclusive": a kink at these parameters, a loss that changes from call to call,
    differences that are too coarse, or a gradient and a loss that are constant.
    Raises ArgumentError in one line for other arguments, and for what fn raises.

    >>> import numpy as np, refmaml as rm
    >>> def quartic(w):
    ...     return 4 * w**3, (w**4).sum()
    >>> rm.check_gradient(quartic, np.array([1.0, -2.0, 0.5])).ok
    True
    """
    tol = check_settings(precision, tol, seed)
    whole = isinstance(directions, int) and directions >= 1
    expect(whole, "directions", "an integer >= 1", lambda: repr(directions))
    with Scope(params, batch):
        problem = LossAndGradient(fn, params, batch, precision)
        report = in_either_order(
            problem, lambda: examined(Examination(problem, tol, seed, directions))
        )
    report.about.update(
        calls=problem.calls,
        seed=seed,
        precision=precision,
        versions={"refmaml": __version__, "numpy": np.__version__},
    )
    return report


class Examination:
    """The problem, its answer at the parameters, and how directions are judged."""

    def __init__(self, problem, tol, seed, count, vector=None):
        self.problem, self.tol, self.seed, self.count = problem, tol, seed, count
        self.tree = problem.tree
        self.vector = self.tree.start if vector is None else vector
        self.gradient, self.loss = problem(self.vector)
        self.absent = problem.absent
        self.scales = directions.magnitudes(self.tree, self.vector)
        self.rng, self.moves = np.random.default_rng(seed), False
        self.step = directions.FIRST

    def moved(self):
        """The same beside these parameters."""
        rng = np.random.default_rng(self.seed)
        beside = self.vector + BESIDE * self.scales * rng.standard_normal(self.tree.size)
        return Examination(self.problem, self.tol, self.seed, self.count, beside)

    def along(self, v, **options):
        """The Derivative of the loss along v."""

        def loss(s):
            value = self.problem.loss(self.vector + s * v)
            self.moves = self.moves or value != self.loss
            return value

        precision = self.problem.precision
        return directions.derivative(loss, self.loss, precision=precision, **options)

    def row(self, name, v, **options):
        """One direction as a Row, and the Derivative."""
        d = self.along(v, **options)
        got, spread = float(self.gradient @ v), float(np.linalg.norm(self.gradient * v))
        size = max(spread, abs(float(d.value))) or 1.0
        error, allowed = abs(got - d.value) / size, max(self.tol, d.uncertainty / size)
        factor = got / float(d.value) if d.value else float("nan")
        return self.judged(name, d, error, allowed, size, factor), d

    def judged(self, name, d, error, allowed, size, factor):
        """The Row of a direction with its verdict."""
        if d.jump > self.tol * size:
            remark = f"a kink: one-sided derivatives differ by {d.jump / size:.1e}"
            return Row(name, error, allowed, factor, INCONCLUSIVE, remark)
        verdict, remark = (WRONG if error > allowed else RIGHT), ""
        if verdict == RIGHT and allowed > COARSE:
            verdict, remark = INCONCLUSIVE, "the loss is not smooth or exact enough here"
        return Row(name, float(error), float(allowed), factor, verdict, remark)


def examined(exam):
    """The CheckReport."""
    noise = noise_report(exam)
    if noise is not None:
        return noise
    rows = direction_rows(exam)
    if not exam.moves:
        return constant_loss(exam, rows)
    verdict = verdict_of(rows)
    if verdict == WRONG:
        return wrong_report(exam, rows)
    if verdict == RIGHT:
        return right_report(exam, rows)
    return beside_report(exam, rows)


def direction_rows(exam):
    """A Row for each direction; at kinks, as many others are tried."""
    rows, plain = [], exam.scales
    even = directions.balanced(exam.tree, exam.scales, exam.gradient)
    for i in range(2 * exam.count):
        v = (even if i % 2 else plain) * exam.rng.standard_normal(exam.tree.size)
        row, d = exam.row(f"direction {i + 1}", v)
        exam.step = min(exam.step, d.step)
        rows.append(row)
        if sum(row.verdict != INCONCLUSIVE for row in rows) >= exam.count:
            break
    return tuple(rows)


def noise_report(exam):
    """A report where repeated calls with the same inputs differ, or None."""
    losses, gradients = [exam.loss], [exam.gradient]
    for _ in range(REPEATED):
        gradient, loss = exam.problem(exam.vector)
        losses.append(loss)
        gradients.append(gradient)
    steps = np.diff(losses)
    spread = np.abs(steps).max() / (np.abs(losses).max() or 1.0)
    change = np.abs(np.diff(gradients, axis=0)).max() / (np.abs(gradients).max() or 1.0)
    if max(spread, change) <= exam.tol:
        return None
    drifts = spread > 0 and (np.sign(steps) == np.sign(steps[0])).all() and abs(steps[0]) > 0
    how = "in one direction: something is carried from call to call" if drifts else "to and fro"
    what = "the loss" if spread >= change else "the gradient"
    return CheckReport(
        "gradient",
        INCONCLUSIVE,
        f"{what} changes by {max(spread, change):.1e}, relative, from call to call with the "
        f"same inputs, {how}",
        "set the seed of dropout and of every random number inside the function; copy a model "
        "or a state that calls change",
        rows=(Row("repeated calls", float(max(spread, change)), exam.tol, float("nan"),
                  INCONCLUSIVE),),
    )  # fmt: skip


def constant_loss(exam, rows):
    """The report of a loss that does not change with the parameters."""
    zero = not exam.gradient.any()
    return CheckReport(
        "gradient",
        INCONCLUSIVE if zero else WRONG,
        "the loss does not depend on params, and the gradient is 0"
        if zero
        else "the loss does not depend on params: it has the same bits at every other value",
        "compute the loss with the params that the function receives, not with a model's own "
        "(torch.func.functional_call(model, params, ...))",
        rows=rows,
    )


def right_report(exam, rows):
    """The report of a right gradient."""
    kinks = [row for row in rows if row.verdict == INCONCLUSIVE]
    remarks = [SHARED]
    if kinks:
        remarks.append(f"{len(kinks)} of {len(rows)} directions show a kink or are not smooth")
    if exam.absent:
        names = ", ".join(exam.absent)
        remarks.append(f"None stands for 0, which is right here: {names}")
    worst = max(row.error for row in rows if row.verdict == RIGHT)
    text = f"the gradient is the derivative of the loss, to {worst:.1e} along random directions"
    return CheckReport("gradient", RIGHT, text, rows=rows, remarks=tuple(remarks))


def beside_report(exam, rows):
    """The report where no direction can be judged: the same is tried beside it."""
    kinked = any("kink" in row.remark for row in rows)
    why = "a kink lies at these params" if kinked else "the loss is not smooth or exact enough"
    fix = "pass other params (moved by 1e-3), or compute in float64"
    if kinked:
        other = exam.moved()
        beside = direction_rows(other)
        if verdict_of(beside) == WRONG:
            return wrong_report(other, rows + beside, ("at params moved by 1e-3, off the kink",))
        if verdict_of(beside) == RIGHT:
            why += "; moved by 1e-3, off the kink, the gradient is right"
            rows += tuple(row._replace(name=f"beside: {row.name}") for row in beside)
    return CheckReport("gradient", INCONCLUSIVE, why, fix, rows=rows)


def wrong_report(exam, rows, findings=()):
    """The report of a wrong gradient: a factor, or the arrays and entries."""
    judged = [row for row in rows if row.verdict != INCONCLUSIVE]
    lengths = lengths_of(exam.problem.batch)
    remarks = [f"None counts as 0: {', '.join(exam.absent)}"] if exam.absent else []
    factor = common([row.factor for row in judged], agreement(judged))
    if factor is not None:
        text = (
            f"the gradient is {times_text(factor)} the derivative of the loss: "
            f"{meaning(factor, lengths)}"
        )
        fix = fix_of(factor, "the gradient")
        return CheckReport("gradient", WRONG, text, fix, findings, rows, tuple(remarks))
    place = located(exam, lengths)
    return CheckReport(
        "gradient",
        WRONG,
        f"the gradient is not the derivative of the loss{place.text}",
        place.fix,
        (*findings, *place.findings),
        (*rows, *place.rows),
        tuple(remarks),
    )
