"""Whole meta-gradients side by side: everybody agrees on the gradient first and finds its best settings; then they take turns."""

from contextlib import ExitStack
from time import perf_counter
from typing import NamedTuple

import numpy as np

from refmaml.bench.agreement import (
    EXACT,
    disagreement,
    distance,
    few_tasks,
    reference_gradient,
    rounded_limit,
)
from refmaml.bench.contestants import find
from refmaml.bench.contestants.contestant import first_of
from refmaml.bench.timing import Spread, by_turns, spread
from refmaml.bench.worker import Worker, WorkerError


class Options(NamedTuple):
    """kernels      what refmaml computes with
    seconds      for each contestant and workload; it gets three turns even so
    turn         seconds of one turn
    tune         seconds in which each may try settings, on each workload
    environment  variables of their processes
    busy         nobody's threads wait in a spin: for a machine that has other work to do
    tell         called with a line of text now and then
    """

    kernels: str = "cpu"
    seconds: float = 6.0
    turn: float = 0.3
    tune: float = 12.0
    environment: tuple = ()
    busy: bool = False
    tell: object = print


class Result(NamedTuple):
    """seconds, None where it was refused; settings, and every one tried with its seconds; first: seconds of the call in which some compile.

    wait            OMP_WAIT_POLICY of its process, None: as it comes
    exact, rounded  the errors of its gradient in float64 and float32
    peak            bytes over the process's own start, see worker.py
    refused         why it was not timed
    reduced         whether its products were of rounded numbers, so that it is no peer of equal precision
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


def tune(worker, workload, choices, seconds, turn, prepared=False):
    """(the best settings found, [(settings, seconds), ...]): one setting after the other is varied until the time is used up.

    prepared: the first settings are what the worker was asked to prepare last.

    Who has no choice computes once all the same, so that what compiled code a library keeps on disk is there for the race.
    """
    started, tried = perf_counter(), []

    def measured(settings):
        if tried or not prepared:
            worker.ask("prepare", workload, settings)
        tried.append((settings, min(worker.ask("turn", turn))))
        return tried[-1]

    best = measured(first_of(choices))
    for name, values in choices.items():
        for value in values[1:]:
            if perf_counter() - started > seconds:
                return best[0], tried
            best = min(best, measured(best[0] | {name: value}), key=lambda entry: entry[1])
    return best[0], tried


def fewer(settings, few):
    """The settings with no more tasks at once than there are."""
    return settings | ({"chunk": min(settings["chunk"], few.tasks)} if "chunk" in settings else {})


def sit(name, options, wait=None):
    """A worker for a contestant, in its environment."""
    wait = "PASSIVE" if options.busy else wait
    return Worker(
        name,
        options.kernels,
        {**dict(options.environment), **({"OMP_WAIT_POLICY": wait} if wait else {})},
    )


def rehearse(name, workload, exact, options):
    """The Result so far of one contestant, in processes of its own: agreement in float64, its settings, and how its threads wait."""
    contestant, few = find(name, options.kernels), few_tasks(workload)
    choices = contestant.choices(workload)
    result = Result(name, contestant.title, first_of(choices))
    with sit(name, options) as worker:
        if contestant.checked:
            error = distance(
                worker.ask("gradient", few, np.float64, fewer(result.settings, few)), exact
            )
            result = result._replace(exact=error, refused=disagreement(error, "float64", EXACT))
        if result.refused:
            return result
        best, tried = tune(worker, workload, choices, options.tune, options.turn)
    result = result._replace(settings=best, tried=tuple(tried))
    fastest = min(seconds for _, seconds in tried)
    for wait in () if options.busy else contestant.waits[1:]:
        with sit(name, options, wait) as worker:
            _, ((_, seconds),) = tune(
                worker,
                workload,
                {name: (value,) for name, value in best.items()},
                options.tune,
                options.turn,
            )
        result = result._replace(
            tried=(*result.tried, ({**best, "wait": wait}, seconds)),
            wait=wait if seconds < fastest else result.wait,
        )
    return result


def warm_up(worker, workload, result, yardstick):
    """The Result after the first call of what will be timed, with its error against `yardstick` (P,)."""
    gradient, first = worker.ask("prepare", workload, result.settings)
    result = result._replace(first=first)
    if not find(result.name).checked:
        return result
    error = distance(gradient, yardstick)
    return result._replace(
        rounded=error,
        refused=None if result.reduced else disagreement(error, "float32", rounded_limit(workload)),
    )


def attempt(function, result, *arguments):
    """function(...), or the result refused for what went wrong."""
    try:
        return function(*arguments)
    except WorkerError as error:
        return result._replace(refused=str(error))


def race(workload, names, options):
    """[Result] of everybody on one workload."""
    exact, results, workers = reference_gradient(few_tasks(workload)), {}, {}
    with sit("refmaml", options) as worker:
        yardstick = worker.ask("gradient", workload, np.float64, {})
    for name in names:
        options.tell(f"{workload.name}: {name} rehearses")
        results[name] = attempt(rehearse, Result(name, name, {}), name, workload, exact, options)
    with ExitStack() as stack:
        for name in [name for name in names if not results[name].refused]:
            options.tell(f"{workload.name}: {name} starts")
            worker = stack.enter_context(sit(name, options, results[name].wait))
            results[name] = attempt(
                warm_up, results[name], worker, workload, results[name], yardstick
            )
            if not results[name].refused:
                workers[name] = worker
        options.tell(f"{workload.name}: {len(workers)} take turns")
        times = by_turns(
            {
                name: lambda s, worker=worker: worker.ask("turn", s)
                for name, worker in workers.items()
            },
            options.seconds,
            options.turn,
        )
        for name, worker in workers.items():
            results[name] = results[name]._replace(
                seconds=spread(times[name]), peak=worker.ask("peak")
            )
    return list(results.values())
