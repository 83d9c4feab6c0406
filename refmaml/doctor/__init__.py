"""The doctor: a verdict on a meta-gradient, and the name of its mistake if it is wrong.

    check.py             check_meta_gradient: arguments and cases
    declarations.py      what the user declares: weights, learned step sizes, schedules
    examination.py       the procedure, from cases to a Report
    case_runs.py         one case in one precision: the call, the comparison, the
                         verdict
    repeats.py           repeated calls: noise, carried state, memory that grows
    diagnosis.py         a wrong gradient: its name, or else where it is wrong

    cases.py             a net, a method, parameters and tasks, with the true
                         meta-gradient
    conditioning.py      how exactly that can be known
    builtin_cases.py     the built-in cases; method_settings.py: step sizes that show
                         mistakes
    method_table.py      what the doctor knows of each method
    task_weights.py, learned_through.py   what the user declares beside it
    conventions.py       what right implementations of one rule do differently
    limits.py            limits that no case reaches

    user_function.py     calling the user's function
    problem.py           its first argument; frameworks.py, layouts.py: its arrays
    returns.py           what it may return

    mistakes/            the known mistakes; dictionary.py: those of one method
    unrolled_variants.py the recursions of refmaml.methods with every choice a field
    unrolled_forward.py  their forward pass; implicit_variants.py: the same of iMAML
    wrong_rules.py, wrong_kernels.py      choices that need formulas of their own
    matching.py          which mistake, with which factor, explains a gradient
    scale_factors.py     what that factor is made of
    fitting.py           the numbers of a mistake, fitted on one case;
    fitted_mistakes.py   confirmed on every case
    task_coefficients.py, solver_mistakes.py, update_after_each_task.py
                         mistakes with a search of their own (golden_section.py)
    patterns.py          what shows without a candidate: zeros, another order, clipping

    bisection.py         where a mistake without a name is: experiments on
    regression_case.py   a small regression; stage_comparison.py, stages_of_methods.py:
                         stages that were returned; findings.py: the result
    random_numbers.py    whether a function draws random numbers, with a seed of its own
    own_settings.py      settings of the method that the function does not read
    places.py, source_advice.py, graph_argument.py
                         what to do about it, beside the code at hand
    report.py            the Report; renderers.py: as text, markdown, JSON and JUnit XML

Imports run one way. Only the command line, the pytest plugin and tests import the
doctor."""

from refmaml.doctor.check import check_meta_gradient
from refmaml.doctor.report import Report

__all__ = ["check_meta_gradient", "Report"]
