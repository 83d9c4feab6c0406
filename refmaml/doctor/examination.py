"""The whole procedure: case after case, precision after precision, and the report."""

from time import process_time

import numpy as np

from refmaml.doctor.case_runs import judged, keeps_first_call, run_case
from refmaml.doctor.conventions import under_convention
from refmaml.doctor.diagnosis import diagnose, name_at_kink
from refmaml.doctor.dictionary import candidate
from refmaml.doctor.limits import unreached_limits
from refmaml.doctor.method_table import UNROLLED, entry
from refmaml.doctor.repeats import repeat
from refmaml.doctor.report import Report
from refmaml.doctor.verdicts import INCONCLUSIVE, RIGHT, WRONG

PRECISIONS = {"float64": np.float64, "float32": np.float32}
NO_SECOND_ORDER = 1e-6  # relative size of a second-order term below which it does not show

KEPT = (
    "right on the first call, wrong at other parameters and tasks: something is kept from the "
    "first call (a model loaded once, a batch, the answer itself)"
)
STATE_OR_NOISE = (
    "the answer changes when the call is repeated: state is carried over, or noise "
    "(a single repeat does not show which: repeats=)"
)
STATE = (
    "the answer moves on from call to call: state is carried over (an optimiser, running "
    "statistics, parameters updated in place)"
)
NOISE = (
    "the answer changes to and fro from call to call: noise (dropout, random batches, "
    "unseeded draws)"
)
SEEDED = "draw nothing inside, or from a seed given"
DRAW_NOTHING = (
    "draw nothing inside; code with dropout is judged by its own loss, loss=, params=, batch=, and "
    "with a seed in the function"
)


def examine(function, cases, precisions, repeats, seconds, remarks):
    """The Report on a UserFunction.

    Precision after precision, until one is wrong; the search for a name then takes at
    most so many seconds of this process's CPU time, which other work on the machine
    does not shorten."""
    results = []
    for precision in precisions:
        earlier_right = bool(results)
        runs = [run_case(function, case, PRECISIONS[precision], earlier_right) for case in cases]
        if any(run.result.verdict == WRONG for run in runs):
            runs, more = by_convention(runs, PRECISIONS[precision], earlier_right)
            cases, remarks = with_methods_of(cases, runs), [*remarks, *more]
        results += [run.result for run in runs]
        if not earlier_right:
            again = repeat(function, runs[0].case, runs[0].answer, repeats) if repeats else None
            remarks += remarks_on(cases, runs, again)
            if again is not None and again.difference > 1:
                return unsteady(again, results, remarks, cases[0].own_loss)
        seconds_left = budget(seconds)
        wrong = any(run.result.verdict == WRONG for run in runs)
        at_kink = [] if wrong else name_at_kink(runs, seconds_left)
        if wrong or at_kink:
            return diagnose(function, runs, results, remarks, seconds_left, at_kink)
        own = [run.case for run in runs if run.case.own and run.result.verdict == RIGHT]
        if not earlier_right and any(keeps_first_call(function, case) for case in own):
            return wrong_calls(KEPT, "use each call's own params and batch", results, remarks)
    return passed(results, [*remarks, *unreached_limits(function, cases)])


def by_convention(runs, dtype, earlier_right):
    """(runs, [remark]) under the convention of the method's rule under which they are
    right; (runs, []) where there is none."""
    for place in range(len(under_convention(runs[0].case.method))):
        judged_again = []
        for run in runs:
            method, remark = under_convention(run.case.method)[place]
            case = run.case.with_(method=method)
            judged_again.append(judged(case, run.answer, dtype, earlier_right))
        if all(run.result.verdict == RIGHT for run in judged_again):
            return judged_again, [remark]
    return runs, []


def with_methods_of(cases, runs):
    """The cases with the methods under which runs were judged."""
    return [
        case if case.method is run.case.method else case.with_(method=run.case.method)
        for case, run in zip(cases, runs, strict=True)
    ]


def budget(seconds):
    """() -> what is left of so many seconds of CPU time."""
    end = process_time() + seconds
    return lambda: end - process_time()


# ---- reports -------------------------------------------------------------------------


def wrong_calls(diagnosis, fix, results, remarks):
    """The Report on a function whose calls depend on each other."""
    return Report(WRONG, diagnosis, fix, results=tuple(results), remarks=tuple(remarks))


def unsteady(again, results, remarks, own_loss):
    """The Report on a function that answers differently when the call is repeated.

    own_loss   whether the loss is the user's own, so that it may draw random numbers
    """
    diagnosis, fix = {
        None: (STATE_OR_NOISE, "start every call afresh, and draw from a seed given"),
        True: (STATE, "start every call afresh"),
        False: (NOISE, SEEDED if own_loss else DRAW_NOTHING),
    }[again.drifts]
    return wrong_calls(diagnosis, fix, results, remarks)


def passed(results, remarks):
    """The Report on a gradient that is wrong in no precision."""
    unsure = [r for r in results if r.verdict == INCONCLUSIVE]
    if unsure:
        first = unsure[0]
        diagnosis, fix = f"{first.case}, {first.precision}: {first.remark}", advice(unsure)
        return Report(INCONCLUSIVE, diagnosis, fix, results=tuple(results), remarks=tuple(remarks))
    error = max(r.worst.error for r in results if r.precision == results[0].precision)
    text = f"the largest error of any parameter is {error:.1e} in {results[0].precision}"
    leak = next((r for r in remarks if r.startswith("memory grows")), "")
    diagnosis = f"{text}; but {leak}" if leak else text
    return Report(RIGHT, diagnosis, results=tuple(results), remarks=tuple(remarks))


def advice(unsure):
    """What to do about results that are inconclusive."""
    if any("TF32" in r.remark for r in unsure):
        return (
            "torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False; "
            "jax: default_matmul_precision highest"
        )
    if "conditioned" in unsure[0].remark:
        return "a smaller step size, or float64 inside and out"
    return "another seed, or float64 inside and out"


# ---- remarks -------------------------------------------------------------------------


def remarks_on(cases, runs, again):
    """[text]: observations that do not change the verdict.

    again   the Repeats of the first case, or None
    """
    answer, found = runs[0].answer, no_second_order(cases)
    if answer.dtype is np.float32:
        hidden = max(run.case.relative_allowance for run in runs)
        found.append(
            "it returns float32 (given float64, that hides errors of up to "
            f"{hidden:.0e} of a parameter's gradient)"
        )
    found += [
        f"what was returned as {name} is ignored, as it is no array: {why}"
        for name, why in answer.unread
    ]
    if again is None or again.difference > 1:
        return found
    if not again.identical:
        found.append("repeated calls differ in their last bits: sums in a changing order")
    if again.growth:
        amount, unit = again.growth
        found.append(
            f"memory grows by {amount} {unit} with every call: something keeps what a call has made"
        )
    return found


def no_second_order(cases):
    """[text] where the second-order term on the user's net is too small to show."""
    found = []
    for case in cases:
        known = entry(case.method)
        if not case.own or known.kind != UNROLLED or not known.second_order:
            continue
        difference = case.truth - candidate(case, {"curvature": 0.0})
        part = np.abs(difference).max() / np.abs(case.truth).max()
        if part < NO_SECOND_ORDER:
            found.append(
                f"on the own net the second-order term is {part:.0e} of the gradient: "
                "mistakes in it cannot be seen there"
            )
    return found
