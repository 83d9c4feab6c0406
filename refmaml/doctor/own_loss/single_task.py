"""A mistake on one task alone, for a loss of the user's own.

A candidate costs a pass for each task and inner step. So the function is called once on
a batch of a single task, and a candidate that does not explain that answer is not
computed for all tasks. Mistakes whose changes depend on the number of tasks are not
judged here."""

import numpy as np

from refmaml.doctor.matching import (
    ACCEPTED,
    CONFLICT,
    TIED,
    candidate_or_truth,
    fit_scale,
    merged,
    misfit_of_truth,
)
from refmaml.doctor.verdicts import WRONG
from refmaml.errors import RefmamlError

MOST_TASKS = 4  # that are looked at, each a call of the user's function
EXPLAINED = ACCEPTED * TIED  # a misfit above which a case excludes a candidate


class SingleTask:
    """case: one of a single task; grad (M,): the wrong answer to it.

    misfits  {changes as text: the misfit of their gradient}
    """

    def __init__(self, case, grad):
        self.case, self.grad, self.misfits = case, grad, {}

    def may_explain(self, case, mistakes):
        """Whether mistakes may explain the answer to a case of several tasks."""
        changes, of_all = merged(self.case, mistakes), merged(case, mistakes)
        if of_all is CONFLICT or changes != of_all:
            return True
        if changes.get("tasks", "first") not in ("first", "last"):
            return True  # a task that is left out leaves none
        alone = {field: value for field, value in changes.items() if field != "tasks"}
        key = repr(sorted(alone.items()))
        if key not in self.misfits:
            c = candidate_or_truth(self.case, alone)
            self.misfits[key] = fit_scale(self.case, self.grad, c).misfit
        return self.misfits[key] <= EXPLAINED


def single_task(function, runs):
    """The SingleTask of the first wrong run, with the first task on which the function
    is wrong; None where it is right on each alone, where it takes no single task, or
    where the loss is not the user's own."""
    case = next((run.case for run in runs if run.result.verdict == WRONG), None)
    if case is None or not case.own_loss or len(case.batch) < 2:
        return None
    for t in range(min(len(case.batch), MOST_TASKS)):
        alone = case.with_(batch=case.batch[t : t + 1])
        try:
            grad = function.answer(alone).grad
        except RefmamlError:
            return None
        shows = np.abs(grad / alone.allowed).max() > EXPLAINED
        if shows and misfit_of_truth(alone, grad) > EXPLAINED:
            return SingleTask(alone, grad)
    return None
