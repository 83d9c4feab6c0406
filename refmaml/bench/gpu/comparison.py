"""Meta-gradients of several implementations on a GPU, by the host's clock.

The clock runs until the gradient is computed: the time that a training loop waits.

As in refmaml/bench/comparison.py, each implementation has its own process, and all run
in turns after they have agreed on the gradient. Here all processes start, load
libraries, compile and compute their first gradients at the same time, because that
takes minutes and a GPU is often borrowed. Timing starts only after that. An
implementation that gives no answer within the limit is refused.
"""

from contextlib import ExitStack
from time import perf_counter

import numpy as np

from refmaml.bench.agreement import (
    FLOAT64_LIMIT,
    disagreement,
    distance,
    few_tasks,
    float32_limit,
    reference_gradient,
)
from refmaml.bench.comparison import Result, check_float32, refused_on_error, tune, warm_up
from refmaml.bench.implementations import find
from refmaml.bench.implementations.implementation import first_settings
from refmaml.bench.timing import by_turns, spread
from refmaml.bench.worker import WorkerError

# Seconds in which an answer that has arrived can be read, after the limit is over.
MIN_WAIT = 0.1
# refmaml's own goal in float64, against the reference on the CPU. Others have
# FLOAT64_LIMIT.
REFMAML_LIMIT = 1e-12


def compare_on_gpu(workload, names, options, start):
    """[Result] of the implementations `names` on one workload.

    start  (name) -> its worker
    The reference in float32 is refmaml's float64 gradient on the GPU.
    """
    choices = {name: find(name, options.kernels).choices(workload) for name in names}
    results = {name: initial_result(name, options.kernels) for name in names}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(start(name)) for name in names}
        reference = first_gradients(stack, workload, workers, choices, results, options, start)
        for name in running(results):
            options.log(f"{workload.name}: {name} tries its settings")
            result = results[name]._replace(settings=first_settings(choices[name]))
            try:
                results[name] = tune_checked(
                    workers[name], workload, choices[name], options, reference, result
                )
            except WorkerError as error:
                # The first settings were right: only the other settings are refused.
                workers[name] = stack.enter_context(start(name))
                results[name] = refused_on_error(
                    retry_first_settings,
                    result,
                    workers[name],
                    workload,
                    reference,
                    result,
                    str(error),
                )
        options.log(f"{workload.name}: {len(running(results))} run in turns")
        time_by_turns({name: workers[name] for name in running(results)}, results, options)
    return list(results.values())


def initial_result(name, kernels):
    """The Result of an implementation that has computed nothing yet."""
    implementation = find(name, kernels)
    return Result(name, implementation.title, {}, reduced=implementation.reduced)


def first_gradients(stack, workload, workers, choices, results, options, start):
    """Check all first gradients in float64 and float32; returns the reference (P,).

    A second process of refmaml computes the reference, so that the memory for it does
    not count. All pipes are closed before any process is waited for.
    """
    few = few_tasks(workload)
    exact, settings = reference_gradient(few), {n: first_settings(c) for n, c in choices.items()}
    other = stack.enter_context(start("refmaml"))
    stack.callback(lambda: [worker.close_pipe() for worker in (*workers.values(), other)])
    options.log(f"{workload.name}: {len(workers)} in float64, on {few.tasks} tasks")
    all_workers(
        workers,
        results,
        "gradient",
        lambda name: (few, np.float64, settings[name]),
        lambda result, gradient: check_float64(exact, result, gradient),
    )
    reference = float64_gradient(other, workload)
    options.log(f"{workload.name}: in float32")
    all_workers(
        workers,
        results,
        "prepare",
        lambda name: (workload, settings[name]),
        lambda result, answer: check_first_call(reference, float32_limit(workload), result, answer),
    )
    return reference


def all_workers(workers, results, method, arguments, read):
    """Call a method of all workers that are not refused, at the same time.

    arguments  (name) -> the arguments of the call
    read       (result, answer) -> the new result; an error refuses the result
    A worker's limit counts from the start of all calls.
    """
    names, started = [name for name in workers if name in running(results)], perf_counter()
    for name in names:
        workers[name].send(method, *arguments(name))

    def answer(worker):
        if worker.limit is None:
            return worker.receive()
        return worker.receive(max(MIN_WAIT, worker.limit - (perf_counter() - started)))

    for name in names:
        results[name] = refused_on_error(
            lambda name=name: read(results[name], answer(workers[name])), results[name]
        )


def check_float64(exact, result, gradient):
    """The Result with its error in float64; beyond its limit it is refused."""
    error = distance(gradient, exact)
    limit = REFMAML_LIMIT if result.name.startswith("refmaml") else FLOAT64_LIMIT
    return result._replace(exact=error, refused=disagreement(error, "float64", limit))


def check_first_call(reference, limit, result, answer):
    """The Result with the time of its first call, and its error in float32."""
    gradient, first = answer
    return check_float32(result._replace(first=first), gradient, reference, limit)


def float64_gradient(worker, workload):
    """The gradient of all tasks: by refmaml on the GPU, or by the reference on the CPU.

    The reference is slow; it is used only if the GPU fails.
    """
    try:
        return worker.call("gradient", workload, np.float64, {})
    except WorkerError:
        return reference_gradient(workload)


def tune_checked(worker, workload, choices, options, reference, result):
    """The Result at the best settings found; their gradient is checked again."""
    best, tried = tune(worker, workload, choices, options.tune, options.turn, prepared=True)
    result = result._replace(settings=best, tried=tuple(tried))
    return warm_up(worker, workload, result, reference) if len(tried) > 1 else result


def retry_first_settings(worker, workload, reference, result, reason):
    """The Result at the first settings, after an error at other settings."""
    result = result._replace(tried=(({"other settings": reason}, None),))
    return warm_up(worker, workload, result, reference)


def time_by_turns(workers, results, options):
    """Run in turns and put times and memory into the results; an error refuses one."""

    def timer(name):
        def run_turn(seconds):
            try:
                return workers[name].call("turn", seconds)
            except WorkerError as error:
                results[name] = results[name]._replace(refused=str(error))
                return None

        return run_turn

    times = by_turns({name: timer(name) for name in workers}, options.seconds, options.turn)
    for name in running(results):
        results[name] = refused_on_error(
            lambda name=name: results[name]._replace(
                seconds=spread(times[name]), peak=workers[name].call("peak")
            ),
            results[name],
        )


def running(results):
    """Names of the implementations that are not refused."""
    return [name for name, result in results.items() if not result.refused]
