"""What the bench times: something that computes a workload's meta-gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from refmaml.methods import IMAML, MAML, Reptile

EVERY_METHOD = (MAML, IMAML, Reptile)


class Implementation(NamedTuple):
    """One implementation of the meta-gradient: refmaml, another library, or sgemm.

    name       on the command line and in tables
    title      in pictures
    modules    modules that must be importable besides refmaml. The worker process
               imports them before it measures the memory that it starts from
    choices    (workload) -> {setting: the values to try, the likeliest first}
    prepare    (workload, dtype, **settings) -> a function without arguments that
               returns the mean meta-gradient: a NumPy array (P,), or what `to_host`
               converts to one
    waits      values of OMP_WAIT_POLICY to try; None is the default. On an idle machine
               threads that spin start sooner than threads that sleep. On a busy machine
               spinning costs many times what it saves
    first_use  uses those modules once, on one number: they load much of themselves, and
               their compilers, only then
    checked    whether it computes a meta-gradient. sgemm, the limit that the others are
               compared with, does not
    methods    the classes of the methods that it can compute

    For a GPU, where the computation goes on after a call has returned:
    to_host      (what a call returned) -> the NumPy array
    synchronize  (what a call returned) -> returns when it is computed; None: a call
                 that has returned is complete
    peak_memory  (the prepared function) -> the largest number of bytes of GPU memory
                 that its library has used; None: the resident memory of its process
                 counts
    reduced      whether the factors of float32 products are rounded to TF32 (10 bits).
                 Its error is reported, and it is no peer of equal precision
    """

    name: str
    title: str
    modules: tuple
    choices: Callable
    prepare: Callable
    waits: tuple = (None,)
    first_use: Callable = bool
    checked: bool = True
    methods: tuple = (MAML,)
    to_host: Callable = np.asarray
    synchronize: Callable | None = None
    peak_memory: Callable | None = None
    reduced: bool = False


OPENMP = (None, "PASSIVE")


def no_choices(workload):
    """The `choices` of an implementation without settings."""
    return {}


def first_settings(choices: dict[str, Any]):
    """The settings to begin with: the first value of each."""
    return {name: values[0] for name, values in choices.items()}


def chunks(workload):
    """Numbers of tasks to compute at once, the likeliest first."""
    if workload.support + workload.query > 40:
        sizes = (4, 8, 16)
        return tuple(n for n in sizes if n < workload.tasks) or (workload.tasks,)
    return (*(n for n in (16, 8, 32, 4) if n < workload.tasks), workload.tasks)
