"""Statistics of a norm over more examples than it should see: over support and query
set together, over all tasks, or of the support set on query points.

A loss that normalises over its examples is no mean of the losses of single examples.
Three experiments tell where the statistics come from:

    every task the same one     all tasks together have the statistics of each
    the query set is the        both sets together, and each of them, have the same
    support set
    every query example twice   the statistics of the query set stay, and those of both
                                sets together change
"""

import numpy as np

from refmaml.doctor.bisection import right
from refmaml.doctor.matching import Explanation
from refmaml.doctor.mistakes import Mistake, fix
from refmaml.errors import RefmamlError

ALONE = fix(
    "normalise the examples of each set of each task by themselves",
    torch="one forward pass for the support set and one for the query set of each task",
    jax="no axis_name over the tasks in the norm, and one forward pass for each set",
)
OVER_TASKS = "the statistics of a norm are over the examples of all tasks together"
OVER_SETS = "the statistics of a norm are over support and query set together"
OF_SUPPORT = "query points are normalised with the support set's statistics"
DIFFERS = 1e-9  # relative change of a loss that is no rounding


def explain_by_statistics(function, runs):
    """[Explanation]; [] where the loss is not the user's own, or nothing explains it.

    runs  [CaseRun] of wrong answers
    """
    run = next((run for run in runs if run.case.own_loss), None)
    if run is None:
        return []
    try:
        name = source_of_statistics(function, run.case, run.answer.grad)
    except RefmamlError:  # sets that cannot be joined, or a function of fixed sizes
        return []
    return [Explanation((Mistake("44", name, None, ALONE),), "", 0.0)] if name else []


def source_of_statistics(function, case, g):
    """OVER_TASKS, OVER_SETS, OF_SUPPORT or ""."""
    if not examples_matter_to_each_other(case):
        return ""
    if len(case.batch) > 1 and not combines_tasks(case, g):
        same = with_tasks(case, lambda task: case.batch.tasks[0])
        alone = right(case, function.mean_of_single_tasks(case), case.truth)
        if alone and is_right(function, same):
            return OVER_TASKS
    if not is_right(function, with_tasks(case, lambda t: (t[0], t[1], *as_query(t[:2])))):
        return ""
    twice = with_tasks(case, lambda t: (*t[:2], t[2].joined(t[2]), t[3].joined(t[3])))
    if not right(case, twice.truth, case.truth):
        return ""  # the loss itself depends on how often an example is there
    unchanged = right(case, function.answer(twice).grad, g)
    return OF_SUPPORT if unchanged else OVER_SETS


def as_query(data):
    """x and y of a support set in the place of a query set."""
    return [d.in_role("query") for d in data]


def with_tasks(case, change):
    """The case with change(task) for every task."""
    return case.with_(batch=case.batch.with_tasks([change(task) for task in case.batch.tasks]))


def is_right(function, case):
    """Whether the function is right on another batch."""
    return right(case, function.answer(case).grad, case.truth)


def examples_matter_to_each_other(case):
    """Whether the loss on two sets together is another number than their mean."""
    xs, ys, xq, yq = case.batch.tasks[0]
    n, m = xs.examples, xq.examples
    if not n or not m:
        return False
    losses = [
        case.net.pass_at(case.theta, x, y, keep=False).loss
        for x, y in ((xs, ys), (xq, yq), (xs.joined(xq), ys.joined(yq)))
    ]
    mean = (n * losses[0] + m * losses[1]) / (n + m)
    return abs(losses[2] - mean) > DIFFERS * abs(mean)


def combines_tasks(case, g):
    """Whether an answer is a weighted sum of the right gradients of the tasks."""
    weights = np.linalg.lstsq((case.rows / case.allowed).T, g / case.allowed, rcond=None)[0]
    return right(case, weights @ case.rows, g)
