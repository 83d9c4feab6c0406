"""refmaml beside itself: more threads, the same bits, a product over a gradient, memory over tasks, and what iMAML computes."""

from contextlib import ExitStack

import numpy as np

from refmaml.bench.contestants.ours import kernels_of
from refmaml.bench.race import sit
from refmaml.bench.timing import by_turns, spread, turn
from refmaml.bench.workloads import TABLE
from refmaml.methods import IMAML

BIT_THREADS, BIT_RUNS, CG_STEPS, MORE = (1, 2, 4), 20, 5, 8


def threads(workload, options, counts):
    """{threads: Spread} of the meta-gradient on each number of threads, by turns."""
    with ExitStack() as stack:
        workers = {n: stack.enter_context(sit(f"refmaml-{n}", options)) for n in counts}
        for worker in workers.values():
            worker.ask("prepare", workload, {})
        times = by_turns(
            {n: lambda s, worker=worker: worker.ask("turn", s) for n, worker in workers.items()},
            options.seconds,
            options.turn,
        )
    return {n: spread(t) for n, t in times.items()}


def bits(workload, options):
    """{"1 threads": digests, ...}: the different float32 gradients, by their sha256, on each number of threads and over BIT_RUNS runs.

    As many threads as there are to compare are made, more than there are processors if need be.
    """
    options = options._replace(
        environment=(*options.environment, ("NUMBA_NUM_THREADS", str(max(BIT_THREADS))))
    )
    found = {}
    for n in BIT_THREADS:
        with sit(f"refmaml-{n}", options) as worker:
            worker.ask("prepare", workload, {})
            found[n] = sorted(worker.ask("digests", BIT_RUNS if n == max(BIT_THREADS) else 1))
    return found


def product_over_gradient(workload, options):
    """{"gradient": Spread, "hvp": Spread} on the support sets: a product on a primal pass that is there, by turns with a gradient."""
    net, batch = (
        workload.net().with_kernels(kernels_of(options.kernels)),
        workload.batch(np.float32),
    )
    w = np.repeat(workload.theta(np.float32)[None], workload.tasks, axis=0)
    primal, v = net.primal(w, batch.x_support, batch.y_support), np.ones_like(w)
    runs = {
        "gradient": lambda: net.gradient(w, batch.x_support, batch.y_support),
        "hvp": lambda: net.hvp(primal, v),
    }
    times = by_turns(
        {name: lambda s, run=run: turn(run, s) for name, run in runs.items()},
        options.seconds,
        options.turn,
    )
    return {name: spread(t) for name, t in times.items()}


def memory_over_tasks(workload, options):
    """{tasks: peak bytes over the process's own start}, for the workload's tasks and MORE times as many."""
    found = {}
    for tasks in (workload.tasks, MORE * workload.tasks):
        with sit("refmaml", options) as worker:
            worker.ask("prepare", workload.with_tasks(tasks), {})
            found[tasks] = worker.ask("peak")
    return found


class Counted:
    """A net that notes in `calls` which of its passes are asked for."""

    PASSES = ("loss", "primal", "hvp")

    def __init__(self, net):
        self.net, self.calls = net, []

    def __getattr__(self, name):
        value = getattr(self.net, name)
        if name not in self.PASSES:
            return value

        def noted(*arguments, **options):
            self.calls.append(name)
            return value(*arguments, **options)

        return noted


def imaml_passes(inner_steps=3):
    """{"inner solve": {pass: count}, "outer solve": {...}} of one iMAML gradient with CG_STEPS iterations, on the small net.

    A primal pass is one forward and one backward pass; the outer solve needs none but the query set's.
    """
    workload, method = (
        TABLE["tiny"],
        IMAML(regularization=50.0, inner_steps=inner_steps, inner_lr=0.01, cg_steps=CG_STEPS),
    )
    net, theta, batch = workload.net(), workload.theta(np.float64), workload.batch(np.float64)
    inner, whole = Counted(net), Counted(net)
    method.adapt(inner, theta, batch.x_support, batch.y_support)
    method.task_gradients(whole, theta, batch, False)
    outer = whole.calls[len(inner.calls) :]
    return {
        name: {kind: calls.count(kind) for kind in Counted.PASSES}
        for name, calls in (("inner solve", inner.calls), ("outer solve", outer))
    }
