"""A remark where a right function has a limit that no case reaches: clipping that does
nothing is right, whatever its derivative is.
"""

import re

import numpy as np

from refmaml.doctor.dictionary import candidate
from refmaml.doctor.method_table import DISPLACEMENT, UNROLLED, entry
from refmaml.doctor.source_advice import source_of
from refmaml.update_rules import Clip

CLIPS = re.compile(r"\b(\w*clip\w*|clamp_?)\s*\(")
SAME = 1e-13  # relative: a factor that is min(1, limit / norm) = 1 changes no bit
DECLARED = (
    "the limit of the method's {} is reached in no inner step of these cases: clipping itself was "
    "not checked"
)
IN_SOURCE = (
    "the function's source has {}(...): a limit that none of these cases reaches is not checked "
    "(to check it: a smaller limit, declared as rule=rm.Clip(...) where the inner loop clips)"
)


def unreached_limits(function, cases):
    """[remark] on a right answer.

    function   a UserFunction; cases: those on which it is right
    """
    rule = getattr(cases[0].method, "rule", None)
    if isinstance(rule, Clip):
        reached = any(changes_something(case) for case in cases)
        return [] if reached else [DECLARED.format(shown(rule))]
    found = CLIPS.search(source_of(function.fn))
    return [IN_SOURCE.format(found[1])] if found else []


def changes_something(case):
    """Whether the clipping of a case's method changes its gradient."""
    if entry(case.method).kind not in (UNROLLED, DISPLACEMENT):
        return True
    unclipped = candidate(case, {"rule": case.method.rule.rule})
    return bool(np.abs(unclipped - case.truth).max() > SAME * np.abs(case.truth).max())


def shown(rule):
    """rm.Clip(norm=50): the rule without the one that it clips for."""
    limit = "norm" if rule.norm is not None else "value"
    return f"rm.Clip({limit}={getattr(rule, limit):g})"
