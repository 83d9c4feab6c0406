"""The report on a wrong gradient: the name of the mistake, or else where it is."""

import numpy as np

from refmaml.doctor import matching, patterns
from refmaml.doctor.bisection import bisect
from refmaml.doctor.case_runs import ILL_CONDITIONED
from refmaml.doctor.conventions import under_convention
from refmaml.doctor.fitted_mistakes import explain_by_fit
from refmaml.doctor.method_table import IMPLICIT, entry
from refmaml.doctor.own_loss.shared_statistics import explain_by_statistics
from refmaml.doctor.own_loss.single_task import single_task
from refmaml.doctor.places import PLACES
from refmaml.doctor.random_numbers import draws_random_numbers
from refmaml.doctor.report import Report
from refmaml.doctor.solver_mistakes import explain_by_solver, missing_step
from refmaml.doctor.source_advice import fitting_advice, source_of
from refmaml.doctor.stage_comparison import compare_stages, way_back
from refmaml.doctor.task_coefficients import FIRST, explain_by_task_coefficients
from refmaml.doctor.update_after_each_task import explain_by_update_after_each_task
from refmaml.doctor.verdicts import INCONCLUSIVE, WRONG
from refmaml.errors import ArgumentError

MOST_TIES = 4  # that are shown
NO_SCALE = "the mean over tasks of d(mean query loss)/d(parameters), times nothing"
LEAST_IN_FLOAT32 = 1e-4  # misfit to float32's tolerance of one constant in float32: one
# rounding, where the tolerance is that of a sum of many; measured 3e-3
IN_FLOAT32 = "right to float32, not to float64: something inside is computed in float32"
USE_FLOAT64 = (
    "no .float(), no float32 constants or "
    "step sizes; torch.set_default_dtype(torch.float64); jax_enable_x64"
)
DRAWS = (
    "the function draws random numbers (dropout?), and net= has none: to judge it with them, give "
    "its loss, loss=, params=, batch=, and seed the function"
)


def draws_unlike_the_net(function, case):
    """Whether a function draws random numbers, where the case's net draws none."""
    return not case.own_loss and draws_random_numbers(function, case)


def diagnose(function, runs, results, remarks, seconds_left, at_kink):
    """The Report on a wrong gradient.

    runs      [CaseRun] of the precision that is wrong; results: all [CaseResult] so far
    at_kink   [Explanation] of what is wrong near a kink only, or []
    """

    def report(diagnosis, fix="", **more):
        return Report(WRONG, diagnosis, fix, results=tuple(results), remarks=tuple(remarks), **more)

    usable = [run for run in runs if at_kink or run.result.verdict != INCONCLUSIVE]
    explanations, single = at_kink, all(right_to_float32(run) for run in usable)
    if not at_kink:
        explanations, runs, more = name(function, usable, seconds_left)
        remarks = [*remarks, *more]
    if not explanations and single:
        return report(IN_FLOAT32, USE_FLOAT64)
    if explanations:
        first, *ties = explanations
        source = source_of(function.fn)
        lines = [fitting_advice(m.fix_for(function.lib.name), source) for m in first.mistakes]
        fix = "; and ".join(line for line in lines if line) or (NO_SCALE if first.scale else "")
        seen = tuple(f.text for f in returned_stages(runs))
        return report(str(first), fix, ties=tuple(map(str, ties[:MOST_TIES])), findings=seen)
    if seconds_left() < 0:
        remarks = [*remarks, "time was up before all names had been tried (seconds=)"]
    findings, where = place(function, runs)
    advice = PLACES.get(findings[0].stage, "") if findings else ""
    advice = fitting_advice(advice, source_of(function.fn))
    return report(
        f"no mistake of the dictionary; {where}",
        DRAWS if draws_unlike_the_net(function, runs[0].case) else advice,
        findings=tuple(f.text for f in findings),
        stages=tuple((f.stage, f.tensor) for f in findings),
    )


def right_to_float32(run):
    """Whether a float64 answer is off as float32 is: within its tolerance, but not by
    less than a rounded constant; on a case where that shows anything."""
    single = run.case.with_(dtype=np.float32)
    misfit = matching.misfit_of_truth(single, run.answer.grad)
    return (
        run.case.dtype is np.float64
        and misfit <= 1
        and (misfit >= LEAST_IN_FLOAT32 or run.result.misfit <= 1)
        and single.relative_allowance <= ILL_CONDITIONED
    )


def name(function, runs, seconds_left):
    """([Explanation], the runs that they explain, [remark]): simple names before
    composed ones.

    The runs may differ from those given: parameters without a gradient count as not
    meta-learned, and the method's rule may follow another convention.
    """
    alone = single_task(function, runs)
    found, remarks = name_simply(runs, seconds_left, alone), []
    if not found and any(run.answer.absent for run in runs):
        runs, absent = without_absent(runs)
        alone = single_task(function, runs)
        found, remarks = name_simply(runs, seconds_left, alone), [patterns.absent(absent)]
    if found:
        return found, runs, remarks
    for changed, remark in under_conventions(runs):
        cases, grads = [run.case for run in changed], [run.answer.grad for run in changed]
        found = explain(cases, grads, seconds_left, single_task(function, changed))
        if found:
            return found, changed, [*remarks, remark]
    return name_by_search(runs, seconds_left, function, alone), runs, remarks


def under_conventions(runs):
    """[(runs under a convention of the method's rule, remark)]."""
    found = []
    for place, (_, remark) in enumerate(under_convention(runs[0].case.method)):
        methods = [under_convention(run.case.method)[place][0] for run in runs]
        cases = [run.case.with_(method=m) for run, m in zip(runs, methods, strict=True)]
        found.append(([r._replace(case=c) for r, c in zip(runs, cases, strict=True)], remark))
    return found


def name_simply(runs, seconds_left, alone):
    """[Explanation] by no gradient, by one mistake, or by what shows without one."""
    cases, answers = [run.case for run in runs], [run.answer for run in runs]
    return (
        patterns.explain_no_gradient(cases, answers)
        or explain(cases, [answer.grad for answer in answers], seconds_left, alone)
        or patterns.explain_by_pattern(cases, answers)
    )


def name_by_search(runs, seconds_left, function, alone):
    """[Explanation] by experiments, by fitted numbers, or by two mistakes."""
    cases, grads = [run.case for run in runs], [run.answer.grad for run in runs]
    known = entry(cases[0].method)
    return (
        explain_by_statistics(function, runs)
        or (known.kind == IMPLICIT and explain_by_solver(cases, grads, seconds_left))
        or explain_by_task_coefficients(cases, grads)
        or explain_by_fit(cases, grads, seconds_left, alone)
        or matching.explain_by_two(cases, grads, seconds_left, alone)
        or (known.second_order and explain_by_task_coefficients(cases, grads, FIRST))
        or []
    )


def without_absent(runs):
    """(runs whose parameters without a gradient are not meta-learned, their names)."""
    absent = [[n for n in run.answer.absent if n in run.case.net.shapes] for run in runs]
    cases = [
        run.case.with_(constant=(*run.case.constant, *names)) if names else run.case
        for run, names in zip(runs, absent, strict=True)
    ]
    names = list(dict.fromkeys(name for found in absent for name in found))
    return [run._replace(case=c) for run, c in zip(runs, cases, strict=True)], names


def explain(cases, grads, seconds_left=lambda: matching.SEARCH_TIME, alone=None):
    """[Explanation] by a factor, by one mistake, or by an update after every task,
    which does not show on one task alone."""
    by_scale = matching.explain_by_scale(cases, grads)
    if by_scale and entry(cases[0].method).kind == IMPLICIT:
        by_scale = missing_step(by_scale)
    return (
        by_scale
        or matching.explain_by_one(cases, grads, seconds_left, alone)
        or (alone is None and explain_by_update_after_each_task(cases, grads, seconds_left))
        or []
    )


def name_at_kink(runs, seconds_left):
    """[Explanation] where an error near a kink is a known mistake, to rounding.

    A flipped choice is never that.
    """
    near = [
        run
        for run in runs
        if run.result.verdict == INCONCLUSIVE and run.result.misfit > 1 and run.case.near_kink
    ]
    if not near:
        return []
    return explain([run.case for run in near], [run.answer.grad for run in near], seconds_left)


def cheapest_wrong(runs):
    """The wrong run whose case is cheapest, or None."""
    wrong = [run for run in runs if run.result.verdict == WRONG]
    return min(wrong, key=lambda run: matching.cost(run.case), default=None)


def returned_stages(runs):
    """[Finding] about the stages that were returned beside a gradient with a name."""
    run = cheapest_wrong(runs)
    if run is None or not run.answer.stages:
        return []
    try:
        return compare_stages(run.case, run.answer) or way_back(run.case, run.answer)
    except ArgumentError:
        return []


def place(function, runs):
    """([Finding], where the mistake is, in words), found on the cheapest wrong case."""
    cheapest = cheapest_wrong(runs)
    findings = bisect(function, cheapest.case, cheapest.answer)
    if findings:
        return findings, findings[0].text
    result = cheapest.result
    return [], f"first seen on the {result.case} case, in {result.worst.name}"
