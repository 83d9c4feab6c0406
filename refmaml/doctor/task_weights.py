"""Weights of the tasks, as the user declares them."""

import numpy as np

from refmaml.errors import expect

WANTED = "numbers, one for each task, or a function of the number of tasks"


class Weights:
    """T -> (T,), the w_t in M = (1/T) sum_t w_t M_t.

    A single task, as it is called in some experiments, has the weight 1.
    """

    def __init__(self, given):
        self.given = given

    def __call__(self, tasks):
        if callable(self.given):
            w = np.asarray(self.given(tasks), np.float64)
        else:
            w = np.ones(1) if tasks == 1 else np.asarray(self.given, np.float64)
        expect(
            w.shape == (tasks,) and np.isfinite(w).all(),
            "task_weights",
            f"{tasks} finite numbers for a case of {tasks} tasks; a function of the number of "
            "tasks fits every case",
            lambda: f"shape {w.shape}",
        )
        return w


def checked_weights(given):
    """Weights, or None where none are given. Raises ArgumentError for another
    object.
    """
    if given is None:
        return None
    known = callable(given) or (np.ndim(given) == 1 and np.asarray(given).dtype.kind in "fi")
    expect(known, "task_weights", WANTED, lambda: repr(given)[:80])
    return Weights(given)
