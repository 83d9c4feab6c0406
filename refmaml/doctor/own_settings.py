"""Settings of the method that a function does not read: numbers written into it.

    inner_lr, regularization   the answer does not change where no step moves
    inner_steps                the answer does not change with a single step

Then the experiments of bisection.py, which change these settings, show nothing.
"""

import numpy as np

from refmaml.doctor.findings import Finding
from refmaml.doctor.fitting import optima, rounded
from refmaml.doctor.method_table import DISPLACEMENT, IMPLICIT, UNROLLED, entry
from refmaml.doctor.mistakes import fitted_imaml, fitted_numbers
from refmaml.doctor.mistakes.family import Family, plain
from refmaml.doctor.mistakes.fitted_rules import EPS, MOMENTUM
from refmaml.doctor.regression_case import with_single_step
from refmaml.update_rules import SGD, Adam

SAME = 1e-12  # relative change of an answer that does not depend on a setting
OWN_STEP, OWN_STEPS = "own step size", "own number of steps"  # stages
STEPS = (
    "the query gradient is right, and inner steps cannot be looked at one by one: their number "
    "does not follow problem.method.inner_steps"
)


def same(g, other):
    """Whether two answers agree to rounding."""
    return bool(np.abs(g - other).max() <= SAME * np.abs(g).max())


def own_step_size(function, case, g):
    """[Finding] where the answer g, for a step size that moves nothing, is that on the
    case itself."""
    answer = function.answer(case).grad
    if not same(g, answer):
        return []
    implicit = entry(case.method).kind == IMPLICIT
    setting = "regularization" if implicit else "inner_lr"
    what = "the linear system" if implicit else "the inner step"
    number = own_number(case, answer)
    written = f", {number} is written into the function" if number else ""
    text = (
        f"{what} does not follow problem.method.{setting}{written}: the answer is the same for "
        f"every {setting}"
    )
    return [Finding(OWN_STEP, "", text)]


def own_number(case, answer):
    """The function's own step size or lambda in words, where one fits; else ""."""
    if entry(case.method).kind == IMPLICIT:
        for family in fitted_imaml.regularization()[::-1]:
            values = fitted(case, answer, family)
            if values is not None:
                return plain(values[0] * case.method.regularization)
        return ""
    for words, numbers, rule in rules_of(case.method):
        values = fitted(case, answer, own_step(numbers, rule))
        if values is not None:
            more = [plain(v) for v in values[1:]]
            return plain(values[0]) + (f" ({words.format(*more)})" if words else "")
    return ""


def rules_of(method):
    """[(in words, numbers, numbers -> update rule)]: the method's rule, then others."""
    known = [("", (), lambda: method.rule)]
    momentum, eps = MOMENTUM._replace(starts=(0.9,)), EPS._replace(starts=(1e-8,))
    return known + [
        ("with momentum {}", (momentum,), lambda mu: SGD(mu)),
        ("with Adam, eps={}", (eps,), lambda e: Adam(eps=e)),
    ]


def own_step(numbers, rule):
    """The Family of a step size of the function's own, and a rule with numbers."""

    def changes(case, c, *values):
        lengths = case.method.inner_lr
        lengths = lengths if isinstance(lengths, tuple) else (lengths,) * case.method.inner_steps
        return {"rate": tuple(c / a for a in lengths), "rule": rule(*values)}

    return Family("11", None, (fitted_numbers.OWN, *numbers), changes, None)


def fitted(case, answer, family):
    """The values of a family with one optimum, of factor 1; else None."""
    found = optima(case, answer, family, lambda: 1.0)
    if len(found) != 1 or abs(found[0].scale - 1) > 1e-6:
        return None
    return rounded(case, answer, family, found[0]).values


def own_number_of_steps(function, case):
    """[Finding] where a single inner step gives the same answer as all of them."""
    steps = getattr(case.method, "inner_steps", 1)
    if entry(case.method).kind not in (UNROLLED, DISPLACEMENT) or steps == 1:
        return []
    single = function.answer(with_single_step(case)).grad
    return [Finding(OWN_STEPS, "", STEPS)] if same(single, function.answer(case).grad) else []
