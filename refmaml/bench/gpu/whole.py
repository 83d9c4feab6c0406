"""Whole meta-gradients of refmaml alone: what launching costs, what a Hessian-vector product takes beside a gradient, how exact float64 is.

wall     seconds from the call until the result is there, by the host's clock
device   seconds between two events around it, by the device's. Launch by launch that has gaps in which the device waits; of a graph,
         launched alone, it is what the device computes
launching   1 - device time of the graph / wall time: the part of a step that is not computing
"""

from time import perf_counter
from typing import NamedTuple

import numpy as np

from refmaml.bench.agreement import distance, few_tasks, reference_gradient
from refmaml.bench.gpu import engine
from refmaml.bench.gpu.kernel_rows import said
from refmaml.bench.timing import Spread, spread

REPEATS = 30


class Step(NamedTuple):
    """How long one meta-gradient takes, launch by launch or as a graph."""

    wall: Spread
    device: Spread


class Whole(NamedTuple):
    """One workload. exact: the float64 gradient's error against the reference kernels on the processor, on a few tasks.

    gradient, product  device seconds of a gradient, and of a Hessian-vector product on a primal pass that is there, all tasks at weights
                       of their own on the support sets; replayed: both as graphs
    graph              None where there is none, and then why
    """

    workload: str
    exact: float
    eager: Step
    graph: Step | None
    graph_refused: str | None
    gradient: Spread
    product: Spread
    replayed: bool

    def record(self):
        """The fields, and what follows from them."""
        busy = self.graph and self.graph.device.median
        steps = {"eager": self.eager, "graph": self.graph}
        return {
            **self._asdict(),
            "product_over_gradient": self.product.median / self.gradient.median,
            "launching": {name: 1 - busy / step.wall.median for name, step in steps.items()}
            if busy
            else None,
        }


def walls(gpu, run):
    """Seconds of calls, each until it was done."""
    times = []
    for _ in range(REPEATS):
        gpu.wait()
        started = perf_counter()
        run()
        gpu.wait()
        times.append(perf_counter() - started)
    return times


def step(gpu, run, launch=None):
    """The Step of a run; launch: what of it the device's clock is to see, if not all."""
    device, _ = gpu.timings(launch or run, REPEATS, graph=False)
    return Step(spread(walls(gpu, run)), spread(device))


def product_and_gradient(gpu, workload, kernel_set):
    """(Spread of a gradient, of a product, whether both were graphs)."""
    net, theta, batch = engine.laid_out(workload, np.float32, kernel_set)
    w = gpu.xp.ascontiguousarray(gpu.xp.broadcast_to(theta, (workload.tasks, len(theta))))
    primal, v = net.primal(w, batch.x_support, batch.y_support), gpu.xp.ones(w.shape, w.dtype)
    gradient, one = gpu.timings(lambda: net.gradient(w, batch.x_support, batch.y_support), REPEATS)
    product, other = gpu.timings(lambda: net.hvp(primal, v), REPEATS)
    if one != other:  # both the same way, or they are not to be compared
        gradient, _ = gpu.timings(
            lambda: net.gradient(w, batch.x_support, batch.y_support), REPEATS, graph=False
        )
        product, _ = gpu.timings(lambda: net.hvp(primal, v), REPEATS, graph=False)
    return spread(gradient), spread(product), one and other


def whole(gpu, workload):
    """The Whole of a workload."""
    kernel_set, few = gpu.kernel_set(), few_tasks(workload)
    exact = distance(
        gpu.fetch(engine.eager(few, np.float64, kernel_set)()), reference_gradient(few)
    )
    eager, graph, refused = step(gpu, engine.eager(workload, np.float32, kernel_set)), None, None
    try:
        replayed = engine.graph(workload, np.float32, kernel_set)
        graph = step(gpu, replayed, replayed.launch)
    except Exception as error:  # there may be no graph here, for many reasons
        refused = said(error)
    return Whole(
        workload.name,
        exact,
        eager,
        graph,
        refused,
        *product_and_gradient(gpu, workload, kernel_set),
    )
