"""Which mistake with fitted numbers explains a gradient on every case.

The numbers are fitted on the cheapest case on which the gradient is wrong, rounded
where the rounded number fits as well, and confirmed on every other case. A name is
given where the fit is at the noise floor. A second optimum there, or a second family
with as many numbers, is listed as one that cannot be distinguished. A family without an
optimum on one task alone is not fitted on all.
"""

from refmaml.doctor import scale_factors
from refmaml.doctor.fitting import descend, far, fit_of, optima, rounded
from refmaml.doctor.matching import ACCEPTED, SEARCH_TIME, TIED, Explanation, cost, misfit_of_truth
from refmaml.doctor.method_table import DISPLACEMENT, IMPLICIT, NO_LOOP, SOLVED, entry
from refmaml.doctor.mistakes import Mistake, fitted_imaml, fitted_numbers, fitted_rules


def families(method):
    """[Family] of a method, those with fewer numbers first."""
    known = entry(method)
    if known.kind in (NO_LOOP, SOLVED):
        return []
    if known.kind == IMPLICIT:
        return fitted_imaml.fitted(method)
    found = [
        fitted_numbers.step_size(),
        *fitted_numbers.own_step_size(method),
        *fitted_numbers.step_sizes_that_differ(method),
        *fitted_numbers.decay(),
        *fitted_numbers.anchors(),
        *fitted_rules.momentum(method),
        *fitted_rules.clipping(method),
        *fitted_rules.adaptive(method),
    ]
    if known.kind != DISPLACEMENT:
        found.insert(1, fitted_numbers.loss_weights(method))
    if known.second_order:
        found.insert(1, fitted_numbers.hessian_factor())
    else:
        found = [family for family in found if not family.backward]
    return sorted(found, key=lambda family: len(family.numbers))


def explain_by_fit(cases, grads, seconds_left=lambda: SEARCH_TIME, alone=None):
    """[Explanation] by one family, the likeliest first; [] where none explains every
    case.

    alone  a SingleTask (own_loss/single_task.py) on which each is fitted first, or None
    """
    pairs = sorted(zip(cases, grads, strict=True), key=lambda pair: cost(pair[0]))
    wrong = [pair for pair in pairs if misfit_of_truth(*pair) > 1]
    if not wrong:
        return []
    found, size = [], None
    for family in families(wrong[0][0].given or wrong[0][0].method):
        if seconds_left() <= 0 or (found and len(family.numbers) > size):
            break
        first = fitted_on(wrong, family)
        for optimum in optima_of(first, family, seconds_left, alone):
            optimum = rounded(*first, family, optimum)
            explained = confirmed(pairs, first, family, optimum, seconds_left)
            if explained is not None:
                found, size = [*found, explained], len(family.numbers)
    return sorted(found, key=lambda e: len(e.scale))


def optima_of(first, family, seconds_left, alone):
    """[Optimum] of a family on a pair of case and gradient, from those on one task
    alone; from all starts where these do not lead to one."""
    if alone is None:
        return optima(*first, family, seconds_left)
    pair, enough = (alone.case, alone.grad), ACCEPTED * TIED
    starts = optima(*pair, family, seconds_left, accepted=enough, rough=True)
    found = optima(*first, family, seconds_left, [o.values for o in starts])
    return found or (optima(*first, family, seconds_left) if starts else [])


def fitted_on(wrong, family):
    """The pair of case and gradient that a family is fitted on: the cheapest.

    A net of a single array may be a quadratic.
    """
    several = [pair for pair in wrong if len(pair[0].net.shapes) > 1]
    return (several or wrong)[0] if family.exchangeable else wrong[0]


def confirmed(pairs, first, family, optimum, seconds_left):
    """The Explanation of an optimum on the case `first`, if it holds on every case.

    Its numbers are the same everywhere; or, where the family says so, they are a
    constant over the step size.
    """
    readings = [None] if family.per is None else [None, family.per]
    for per in readings:
        fits = []
        for case, g in pairs:
            ratio = 1.0 if per is None else ratio_of(first[0], case, per)
            fit = None if ratio is None else fit_at(case, g, family, optimum, ratio)
            if fit is None or seconds_left() <= 0:
                break
            fits.append(fit)
        if len(fits) == len(pairs):
            return explanation([case for case, _ in pairs], first[0], family, optimum, per, fits)
    return None


def ratio_of(first, case, per):
    """first's symbol over the case's, or None where a case lacks it."""
    if per not in first.symbols or per not in case.symbols:
        return None
    return first.symbols[per] / case.symbols[per]


def fit_at(case, g, family, optimum, ratio):
    """The Fit at the optimum's numbers times a ratio, or at the nearest optimum to it;
    None where there is none."""
    values = [ratio * v for v in optimum.values]
    fit = fit_of(case, g, family, values)
    if fit is not None and fit.misfit <= ACCEPTED:
        return fit
    near = descend(case, g, family, values)
    same = near.misfit <= ACCEPTED and not far(near, optimum._replace(values=values), family)
    return near if same else None


def explanation(cases, first, family, optimum, per, fits):
    """The Explanation with the numbers printed, or None where its factor has no
    name.
    """
    named = scale_factors.name_of(cases, [f.scale for f in fits])
    if named is None:
        return None
    more = {} if per is None else {"own": own_constant(first, optimum, per, family)}
    name, advice = family.name(*optimum.values, **more), family.fix(*optimum.values, **more)
    text, is_one = named
    mistake = Mistake(family.row, name, None, advice)
    return Explanation((mistake,), "" if is_one else text, max(f.misfit for f in fits))


def own_constant(first, optimum, per, family):
    """The function's own constant: the number times the step size, to 6 digits."""
    return float(f"{optimum.values[0] * first.symbols[per]:.6g}")
