"""Meta-gradients of several implementations, compared on one workload.

First every implementation must agree on the gradient and finds its best settings. Then
all run in turns, each in its own process.
"""

from contextlib import ExitStack
from time import perf_counter
from typing import NamedTuple

import numpy as np

from refmaml.bench.agreement import (
    FLOAT64_LIMIT,
    disagreement,
    distance,
    few_tasks,
    float32_limit,
    reference_gradient,
)
from refmaml.bench.implementations import find
from refmaml.bench.implementations.implementation import first_settings
from refmaml.bench.timing import Spread, by_turns, spread
from refmaml.bench.worker import Worker, WorkerError


class Options(NamedTuple):
    """kernels      the kernel set of refmaml
    seconds      for each implementation and workload; it gets three turns in any case
    turn         seconds of one turn
    tune         seconds for trying settings, of each implementation on each workload
    environment  variables of the worker processes, (name, value) pairs
    busy         no threads spin while they wait: for a machine with other work
    log          called with a line of progress
    """

    kernels: str = "cpu"
    seconds: float = 6.0
    turn: float = 0.3
    tune: float = 12.0
    environment: tuple = ()
    busy: bool = False
    log: object = print


class Result(NamedTuple):
    """One implementation on one workload.

    settings        the best ones; tried: all that were tried, with their seconds
    seconds         None if it was refused
    wait            OMP_WAIT_POLICY of its process; None: the default
    first           seconds of the first call, in which some implementations compile
    exact, rounded  errors of its gradient in float64 and in float32
    peak            bytes beyond the process's start, see worker.py
    refused         the reason why it was not timed
    reduced         its products had rounded factors: no peer of equal precision
    """

    name: str
    title: str
    settings: dict
    seconds: Spread | None = None
    tried: tuple = ()
    wait: str | None = None
    first: float | None = None
    exact: float | None = None
    rounded: float | None = None
    peak: int | None = None
    refused: str | None = None
    reduced: bool = False


def compare(workload, names, options):
    """[Result] of those of the implementations `names` that know the method."""
    exact, results = reference_gradient(few_tasks(workload)), {}
    names = [n for n in names if type(workload.method) in find(n, options.kernels).methods]
    with start_worker("refmaml", options) as worker:
        reference = worker.call("gradient", workload, np.float64, {})
    for name in names:
        options.log(f"{workload.name}: {name} is checked and tuned")
        results[name] = refused_on_error(
            check_and_tune, Result(name, name, {}), name, workload, exact, options
        )
    with ExitStack() as stack:
        workers = start_all(stack, workload, results, reference, options)
        options.log(f"{workload.name}: {len(workers)} run in turns")
        timers = {
            name: lambda s, worker=worker: worker.call("turn", s)
            for name, worker in workers.items()
        }
        times = by_turns(timers, options.seconds, options.turn)
        for name, worker in workers.items():
            results[name] = results[name]._replace(
                seconds=spread(times[name]), peak=worker.call("peak")
            )
    return list(results.values())


def start_all(stack, workload, results, reference, options):
    """{name: its worker} after the first call, for all that are not refused."""
    workers = {}
    for name in [name for name, result in results.items() if not result.refused]:
        options.log(f"{workload.name}: {name} starts")
        worker = stack.enter_context(start_worker(name, options, results[name].wait))
        results[name] = refused_on_error(
            warm_up, results[name], worker, workload, results[name], reference
        )
        if not results[name].refused:
            workers[name] = worker
    return workers


def start_worker(name, options, wait=None):
    """A Worker for an implementation. wait: OMP_WAIT_POLICY of its process."""
    wait = "PASSIVE" if options.busy else wait
    policy = {"OMP_WAIT_POLICY": wait} if wait else {}
    return Worker(name, options.kernels, dict(options.environment) | policy)


def check_and_tune(name, workload, exact, options):
    """The Result after the float64 check, with the best settings and waiting policy."""
    implementation, few = find(name, options.kernels), few_tasks(workload)
    choices = implementation.choices(workload)
    result = Result(name, implementation.title, first_settings(choices))
    with start_worker(name, options) as worker:
        if implementation.checked:
            settings = limit_chunk(result.settings, few)
            error = distance(worker.call("gradient", few, np.float64, settings), exact)
            refused = disagreement(error, "float64", FLOAT64_LIMIT)
            result = result._replace(exact=error, refused=refused)
        if result.refused:
            return result
        best, tried = tune(worker, workload, choices, options.tune, options.turn)
    result = result._replace(settings=best, tried=tuple(tried))
    return try_waits(implementation, workload, result, options)


def try_waits(implementation, workload, result, options):
    """The Result with the fastest waiting policy, at the settings found."""
    fastest = min(seconds for _, seconds in result.tried)
    fixed = {name: (value,) for name, value in result.settings.items()}
    for wait in () if options.busy else implementation.waits[1:]:
        with start_worker(result.name, options, wait) as worker:
            _, ((_, seconds),) = tune(worker, workload, fixed, options.tune, options.turn)
        result = result._replace(
            tried=(*result.tried, ({**result.settings, "wait": wait}, seconds)),
            wait=wait if seconds < fastest else result.wait,
        )
    return result


def limit_chunk(settings, workload):
    """The settings with no more tasks at once than the workload has."""
    if "chunk" not in settings:
        return settings
    return settings | {"chunk": min(settings["chunk"], workload.tasks)}


def tune(worker, workload, choices, seconds, turn, prepared=False):
    """(the best settings, [(settings, seconds), ...]).

    Varies one setting after the other until `seconds` are over.

    prepared  the worker's last "prepare" was for the first settings

    An implementation without choices computes once as well, so that a library that
    keeps compiled code on disk has it there when the timings begin.
    """
    started, tried = perf_counter(), []

    def measured(settings):
        if tried or not prepared:
            worker.call("prepare", workload, settings)
        tried.append((settings, min(worker.call("turn", turn))))
        return tried[-1]

    best = measured(first_settings(choices))
    for name, values in choices.items():
        for value in values[1:]:
            if perf_counter() - started > seconds:
                return best[0], tried
            best = min(best, measured(best[0] | {name: value}), key=lambda entry: entry[1])
    return best[0], tried


def warm_up(worker, workload, result, reference):
    """The Result after the first call of what will be timed.

    Its gradient is compared with `reference` (P,).
    """
    gradient, first = worker.call("prepare", workload, result.settings)
    result = result._replace(first=first)
    if not find(result.name).checked:
        return result
    return check_float32(result, gradient, reference, float32_limit(workload))


def check_float32(result, gradient, reference, limit):
    """The Result with its error in float32; beyond the limit it is refused."""
    error = distance(gradient, reference)
    refused = None if result.reduced else disagreement(error, "float32", limit)
    return result._replace(rounded=error, refused=refused)


def refused_on_error(function, result, *arguments):
    """function(*arguments), or `result` refused with the text of its WorkerError."""
    try:
        return function(*arguments)
    except WorkerError as error:
        return result._replace(refused=str(error))
