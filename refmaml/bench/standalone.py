"""Measurements of refmaml alone, without other libraries.

The gain from more threads; whether the bits are the same on 1, 2 and 4 threads; the
time of a Hessian-vector product relative to a gradient; memory relative to the number
of tasks; and the passes that iMAML computes.
"""

from contextlib import ExitStack

import numpy as np

from refmaml.bench.comparison import start_worker
from refmaml.bench.implementations.refmaml_kernels import kernel_set_by_name
from refmaml.bench.timing import by_turns, spread, turn
from refmaml.bench.workloads import TABLE
from refmaml.methods import IMAML

# Threads and runs that must give the same bits.
DIGEST_THREADS, DIGEST_RUNS = (1, 2, 4), 20
CG_STEPS, MEMORY_FACTOR = 5, 8


def thread_scaling(workload, options, counts):
    """{threads: Spread} of the meta-gradient on each number of threads, in turns."""
    with ExitStack() as stack:
        workers = {n: stack.enter_context(start_worker(f"refmaml-{n}", options)) for n in counts}
        for worker in workers.values():
            worker.call("prepare", workload, {})
        timers = {
            n: lambda s, worker=worker: worker.call("turn", s) for n, worker in workers.items()
        }
        times = by_turns(timers, options.seconds, options.turn)
    return {n: spread(t) for n, t in times.items()}


def gradient_digests(workload, options):
    """{threads: sorted sha256 of the different float32 gradients}.

    The largest number of threads runs DIGEST_RUNS times, the others once. Numba starts
    as many threads as the largest number needs, more than there are cores if necessary.
    """
    most = max(DIGEST_THREADS)
    options = options._replace(environment=(*options.environment, ("NUMBA_NUM_THREADS", str(most))))
    digests = {}
    for n in DIGEST_THREADS:
        with start_worker(f"refmaml-{n}", options) as worker:
            worker.call("prepare", workload, {})
            digests[n] = sorted(worker.call("digests", DIGEST_RUNS if n == most else 1))
    return digests


def product_over_gradient(workload, options):
    """{"gradient": Spread, "hvp": Spread} on the support sets, in turns.

    The Hessian-vector product uses a primal pass that was computed before.
    """
    net = workload.net().with_kernels(kernel_set_by_name(options.kernels))
    batch = workload.batch(np.float32)
    w = np.repeat(workload.theta(np.float32)[None], workload.tasks, axis=0)
    primal, v = net.primal(w, batch.x_support, batch.y_support), np.ones_like(w)
    runs = {
        "gradient": lambda: net.gradient(w, batch.x_support, batch.y_support),
        "hvp": lambda: net.hvp(primal, v),
    }
    timers = {name: lambda s, run=run: turn(run, s) for name, run in runs.items()}
    times = by_turns(timers, options.seconds, options.turn)
    return {name: spread(t) for name, t in times.items()}


def memory_over_tasks(workload, options):
    """{tasks: peak bytes beyond the process's start}.

    For the workload's number of tasks and for MEMORY_FACTOR times as many.
    """
    peaks = {}
    for tasks in (workload.tasks, MEMORY_FACTOR * workload.tasks):
        with start_worker("refmaml", options) as worker:
            worker.call("prepare", workload.with_tasks(tasks), {})
            peaks[tasks] = worker.call("peak")
    return peaks


class CountingNet:
    """A net that appends the name of each pass it computes to `calls`."""

    PASSES = ("loss", "primal", "hvp")

    def __init__(self, net):
        self.net, self.calls = net, []

    def __getattr__(self, name):
        value = getattr(self.net, name)
        if name not in self.PASSES:
            return value

        def counting(*arguments, **options):
            self.calls.append(name)
            return value(*arguments, **options)

        return counting


def imaml_passes(inner_steps=3):
    """{"inner solve": {pass: count}, "outer solve": {...}} of one iMAML gradient.

    CG_STEPS iterations on the small net. A primal pass is one forward and one backward
    pass; the outer solve needs only that of the query set.
    """
    workload = TABLE["tiny"]
    method = IMAML(regularization=50.0, inner_steps=inner_steps, inner_lr=0.01, cg_steps=CG_STEPS)
    net, theta, batch = workload.net(), workload.theta(np.float64), workload.batch(np.float64)
    inner, both = CountingNet(net), CountingNet(net)
    method.adapt(inner, theta, batch.x_support, batch.y_support)
    method.task_gradients(both, theta, batch, False)
    outer = both.calls[len(inner.calls) :]
    return {
        name: {kind: calls.count(kind) for kind in CountingNet.PASSES}
        for name, calls in (("inner solve", inner.calls), ("outer solve", outer))
    }
