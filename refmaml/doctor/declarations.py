"""What the user declares of a function, so that it is not called a mistake.

Task weights, step sizes that are learned through a function, a schedule of the
function's own, parameters that are not meta-learned; and the tolerance.
"""

import numpy as np

from refmaml.doctor.learned_through import LEARNED, checked
from refmaml.doctor.method_settings import selects
from refmaml.doctor.method_table import entry
from refmaml.doctor.task_weights import checked_weights
from refmaml.errors import expect


def declarations(method, tol, task_weights, learned_through, step_factors):
    """case -> the case with what these arguments of check_meta_gradient declare.

    Raises ArgumentError for arguments that mean nothing, and on a case with another
    number of tasks than there are weights.
    """
    known, through = entry(method), checked(learned_through).get(LEARNED, "")
    learns = known.step_sizes is not None
    wanted = "a method that learns step sizes"
    expect(not through or learns, "learned_through", wanted, lambda: repr(method))
    weights = checked_weights(task_weights)
    factors = None if step_factors is None else checked_factors(step_factors, method)
    fields = {"tol": tol, "step_sizes_through": through}
    fields |= {} if weights is None else {"task_weights": weights}

    def declared(case):
        case = case.with_(**fields)
        if weights is not None:
            case.mean(np.zeros((len(case.batch), 1)))  # raises for other numbers of tasks
        return case if factors is None else case.scheduled(factors)

    return declared


def with_constants(cases, patterns):
    """(the cases in which what the patterns select is not meta-learned, [remark]).

    A built-in case takes the patterns that select something in it, and is left out
    where nothing is left to learn. Raises ArgumentError for a pattern that selects
    nothing in any case.
    """
    if not patterns:
        return cases, []
    kept, remarks = [], []
    for pattern in patterns:
        known = any(selects(case.net, pattern) for case in cases)
        wanted = f"names or patterns of parameters: {', '.join(cases[-1].net.shapes)}"
        expect(known, "not_meta_learned", wanted, repr(pattern))
    for case in cases:
        case = case.with_(constant=tuple(p for p in patterns if selects(case.net, p)))
        if case.constant_names < set(case.net.shapes):
            kept.append(case)
        else:
            remarks.append(f"the {case.name} case was left out: nothing in it is meta-learned")
    expect(kept, "not_meta_learned", "patterns that leave something to learn", repr(patterns))
    return kept, remarks


def checked_factors(given, method):
    """The argument `step_factors` as a tuple of numbers."""
    fits = isinstance(getattr(method, "inner_lr", None), float) and entry(method).step_sizes is None
    wanted = "a method with one step size that is not learned"
    expect(fits, "step_factors", wanted, lambda: repr(method))
    K = method.inner_steps
    numbers = np.ndim(given) == 1 and len(given) == K and np.asarray(given).dtype.kind in "fi"
    fits = numbers and np.isfinite(given).all() and np.min(given) > 0
    expect(fits, "step_factors", f"{K} numbers > 0, one for each inner step", lambda: repr(given))
    return tuple(map(float, given))
