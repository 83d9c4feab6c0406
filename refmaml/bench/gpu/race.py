"""Whole meta-gradients side by side on a GPU, by the wall clock: what a training loop waits for, until the gradient is there.

As race.py, everybody in a process of its own and in turns, after all have agreed. Here processes start, load their libraries, compile and
compute their first gradients at once, as that takes minutes and a GPU is rarely one's own; only then does anybody take times. Who gives no
answer within the limit is out.
"""

from contextlib import ExitStack
from time import perf_counter

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
from refmaml.bench.race import Result, attempt, tune, warm_up
from refmaml.bench.timing import by_turns, spread
from refmaml.bench.worker import WorkerError

LEAST = 0.1  # seconds in which an answer that is there can be taken
OURS_EXACT = 1e-12  # in float64, against the reference on the processor: refmaml's own goal, where others have EXACT


def entry(name, kernels):
    """The Result of somebody who has done nothing yet."""
    contestant = find(name, kernels)
    return Result(name, contestant.title, first_of({}), reduced=contestant.reduced)


def all_workers(workers, results, method, arguments, read):
    """Ask all at once, then take the answers: results[name] = read(result, answer), or out for what went wrong. A worker's limit counts
    from when it was asked, however long the answers before took."""
    asked, started = [name for name in workers if not results[name].refused], perf_counter()
    for name in asked:
        workers[name].send(method, *arguments(name))

    def answer(worker):
        return worker.receive(
            None if worker.limit is None else max(LEAST, worker.limit - (perf_counter() - started))
        )

    for name in asked:
        results[name] = attempt(
            lambda name=name: read(results[name], answer(workers[name])), results[name]
        )


def after_exact(exact, result, gradient):
    """The Result with its error in float64."""
    error = distance(gradient, exact)
    limit = OURS_EXACT if result.name.startswith("refmaml") else EXACT
    return result._replace(exact=error, refused=disagreement(error, "float64", limit))


def after_first(yardstick, limit, result, answer):
    """The Result with what its first call took, and its error in float32."""
    gradient, first = answer
    error = distance(gradient, yardstick)
    return result._replace(
        first=first,
        rounded=error,
        refused=None if result.reduced else disagreement(error, "float32", limit),
    )


def tuned(worker, workload, choices, options, yardstick, result):
    """The Result at the best settings found, whose gradient is looked at again."""
    best, tried = tune(worker, workload, choices, options.tune, options.turn, prepared=True)
    result = result._replace(settings=best, tried=tuple(tried))
    return warm_up(worker, workload, result, yardstick) if len(tried) > 1 else result


def again(worker, workload, yardstick, result, reason):
    """The Result at the first settings with another worker, after one that failed at others."""
    return warm_up(
        worker, workload, result._replace(tried=(({"other settings": reason}, None),)), yardstick
    )


def take_turns(workers, results, options):
    """{name: timings}; who fails is out."""

    def taker(name):
        def take(seconds):
            try:
                return workers[name].ask("turn", seconds)
            except WorkerError as error:
                results[name] = results[name]._replace(refused=str(error))
                return None

        return take

    return by_turns({name: taker(name) for name in workers}, options.seconds, options.turn)


def in_float64(ours, workload):
    """The gradient of all tasks: by refmaml on the GPU, or, if that failed, by the reference on the processor, which takes its time."""
    try:
        return ours.ask("gradient", workload, np.float64, {})
    except WorkerError:
        return reference_gradient(workload)


def gpu_race(workload, names, options, sit):
    """[Result] of everybody on one workload; sit: (name) -> its worker. The yardstick in float32 is refmaml on the GPU in float64."""
    results, few = {name: entry(name, options.kernels) for name in names}, few_tasks(workload)
    choices = {name: find(name, options.kernels).choices(workload) for name in names}
    settings = {name: first_of(choices[name]) for name in names}
    exact = reference_gradient(few)
    with ExitStack() as stack:
        workers, other = (
            {name: stack.enter_context(sit(name)) for name in names},
            stack.enter_context(sit("refmaml")),
        )
        stack.callback(
            lambda: [worker.leave() for worker in (*workers.values(), other)]
        )  # all at once, before any is waited for
        options.tell(f"{workload.name}: {len(names)} in float64, on {few.tasks} tasks")
        all_workers(
            workers,
            results,
            "gradient",
            lambda name: (few, np.float64, settings[name]),
            lambda result, gradient: after_exact(exact, result, gradient),
        )
        yardstick = in_float64(other, workload)  # its memory is not what is measured
        options.tell(f"{workload.name}: in float32")
        all_workers(
            workers,
            results,
            "prepare",
            lambda name: (workload, settings[name]),
            lambda result, answer: after_first(yardstick, rounded_limit(workload), result, answer),
        )
        for name in running(results):
            options.tell(f"{workload.name}: {name} tries its settings")
            result = results[name]._replace(settings=settings[name])
            try:
                results[name] = tuned(
                    workers[name], workload, choices[name], options, yardstick, result
                )
            except (
                WorkerError
            ) as error:  # the first settings were right: what others came to costs them, not these
                workers[name] = stack.enter_context(sit(name))
                results[name] = attempt(
                    again, result, workers[name], workload, yardstick, result, str(error)
                )
        options.tell(f"{workload.name}: {len(running(results))} take turns")
        times = take_turns({name: workers[name] for name in running(results)}, results, options)
        for name in running(results):
            results[name] = attempt(
                lambda name=name: results[name]._replace(
                    seconds=spread(times[name]), peak=workers[name].ask("peak")
                ),
                results[name],
            )
    return list(results.values())


def running(results):
    return [name for name, result in results.items() if not result.refused]
