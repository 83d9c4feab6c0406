"""What takes part: something that computes a workload's meta-gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Contestant(NamedTuple):
    """name     what it is called on the command line and in tables
    title    what it is called in pictures
    modules  what has to be importable besides refmaml; its worker loads them before it looks at the memory it starts from
    choices  (workload) -> {setting: the values to try, the likeliest first}
    prepare  (workload, dtype, **settings) -> a function without arguments that returns the mean meta-gradient, a NumPy array (P,), or
             whatever `fetch` makes one of
    waits    values of OMP_WAIT_POLICY to try, None: as it comes. On an idle machine threads that wait in a spin start sooner than
             those that sleep; on a busy one they cost many times what they save
    first_use  something that uses those modules once, on one number: they load much of themselves, and their compilers, only then
    checked  whether it computes a meta-gradient at all (sgemm, which the others are held against, does not)

    Of those that compute on a GPU, whose work goes on when a call has returned:
    fetch    what a call returned -> the NumPy array
    finish   (what a call returned) -> returns once it is computed; None: a call that has returned is done
    peak     (the prepared function) -> bytes of the GPU's memory its library held at most so far; None: the resident memory of its
             process is what counts
    reduced  whether its products of float32 numbers are rounded to TF32, 10 bits: its error is told, and it is no peer of equal precision
    """

    name: str
    title: str
    modules: tuple
    choices: Callable
    prepare: Callable
    waits: tuple = (None,)
    first_use: Callable = bool
    checked: bool = True
    fetch: Callable = np.asarray
    finish: Callable | None = None
    peak: Callable | None = None
    reduced: bool = False


OPENMP = (None, "PASSIVE")


def first_of(choices: dict[str, Any]):
    """The settings to begin with: the first value of each."""
    return {name: values[0] for name, values in choices.items()}


def chunks(workload):
    """How many tasks at once, the likeliest first: few where each of them is large."""
    sizes = (4, 8, 16) if workload.support + workload.query > 40 else (16, 8, 32, 4)
    return tuple(n for n in sizes if n < workload.tasks) or (workload.tasks,)
