"""One case in one precision: the call, the comparison, the verdict on it."""

from typing import NamedTuple

import numpy as np

from refmaml.doctor.cases import Case
from refmaml.doctor.matching import misfit_of_truth
from refmaml.doctor.report import CaseResult, tensor_rows
from refmaml.doctor.returns import Answer
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG

TF32 = 2.0**12  # misfit of TF32: it keeps 10 bits where float32 keeps 23; a right answer
# uses at most half of what is allowed
ILL_CONDITIONED = 0.01  # relative error allowed by rounding alone above which no answer is
# called right
FLIPS = 10.0  # misfit explained by flipped choices, in multiples of the measured `flip`
DIFFERS = 30.0  # misfit, at least, of an answer kept from other parameters and tasks


class CaseRun(NamedTuple):
    """One call: its CaseResult, the Case in its precision, and the Answer."""

    result: CaseResult
    case: Case
    answer: Answer


def run_case(function, case, dtype, earlier_right):
    """The CaseRun of a case in one precision.

    earlier_right   whether a higher precision was right

    An answer in float32 to float64 inputs is judged by float32's tolerance.
    """
    case = case.rounded(dtype)
    return judged(case, function.answer(case), dtype, earlier_right)


def judged(case, answer, dtype, earlier_right):
    """The CaseRun of an Answer to a case that is rounded to its precision."""
    if answer.dtype is np.float32 and dtype is np.float64:
        case = case.with_(dtype=np.float32)
    misfit = misfit_of_truth(case, answer.grad)
    verdict, remark = judge(case, misfit, earlier_right)
    result = CaseResult(
        case.name,
        np.dtype(dtype).name,
        verdict,
        remark,
        misfit,
        relative_noise(case),
        float(case.margin),
        tensor_rows(case, answer.grad),
    )
    return CaseRun(result, case, answer)


def relative_noise(case):
    """The relative change of the true gradient by one rounding in the case's dtype."""
    roundings = np.finfo(case.dtype).eps / np.finfo(np.float64).eps
    return float(max(case.noise.values()) / np.abs(case.truth).max() * roundings)


def judge(case, misfit, earlier_right):
    """(verdict, remark) of a misfit."""
    if misfit <= 1:
        if case.relative_allowance <= ILL_CONDITIONED:
            return RIGHT, ""
        part = f"{case.relative_allowance:.0%}"
        remark = f"so ill-conditioned that rounding allows errors of {part}"
        return RIGHT if earlier_right else INCONCLUSIVE, remark
    if case.near_kink and misfit <= FLIPS * case.flip:
        return INCONCLUSIVE, "a kink is nearer than rounding"
    if case.dtype is np.float32 and earlier_right and misfit <= TF32:
        remark = "right in float64, off by as much as TF32 or another 10-bit format would be"
        return INCONCLUSIVE, remark
    return WRONG, ""


def keeps_first_call(function, case):
    """Whether an answer that is right on the user's own net is wrong at other
    parameters and tasks."""
    other, answer = function.answer_nearby(case)
    return misfit_of_truth(other, answer.grad) > DIFFERS and not other.near_kink
