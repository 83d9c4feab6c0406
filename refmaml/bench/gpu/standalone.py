"""Whole meta-gradients of refmaml alone on a GPU.

Measured are the cost of launching, the time of a Hessian-vector product relative to a
gradient, and the error in float64.

wall       seconds from the call until the result is computed, by the host's clock
device     seconds between two events around it, by the device's clock. Eager launches
           leave gaps in which the device waits; of a graph, launched alone, it is the
           time that the device computes
launching  1 - device time of the graph / wall time: the part of a step that is not
           computation
"""

from time import perf_counter
from typing import NamedTuple

import numpy as np

from refmaml.bench.agreement import distance, few_tasks, reference_gradient
from refmaml.bench.gpu import engine
from refmaml.bench.gpu.kernel_rows import error_line
from refmaml.bench.timing import Spread, spread

REPEATS = 30


class StepTimes(NamedTuple):
    """The time of one meta-gradient, by both clocks."""

    wall: Spread
    device: Spread


class Standalone(NamedTuple):
    """One workload.

    exact              error of the float64 gradient against the reference kernels on
                       the CPU, on a few tasks
    eager, graph       the meta-gradient by eager launches and by a graph; graph is None
                       if it could not be captured, graph_refused says why
    gradient, product  device seconds of a gradient, and of a Hessian-vector product on
                       a computed primal pass: support sets, different weights in each
                       task
    replayed           whether both were replayed as graphs
    """

    workload: str
    exact: float
    eager: StepTimes
    graph: StepTimes | None
    graph_refused: str | None
    gradient: Spread
    product: Spread
    replayed: bool

    def record(self):
        """The fields and the ratios, for JSON."""
        steps = {"eager": self.eager, "graph": self.graph}
        launching = self.graph and {
            name: 1 - self.graph.device.median / step.wall.median for name, step in steps.items()
        }
        return {
            **self._asdict(),
            "product_over_gradient": self.product.median / self.gradient.median,
            "launching": launching,
        }


def wall_times(gpu, run):
    """Seconds of each call until its result is computed."""
    times = []
    for _ in range(REPEATS):
        gpu.synchronize()
        started = perf_counter()
        run()
        gpu.synchronize()
        times.append(perf_counter() - started)
    return times


def step_times(gpu, run, launch=None):
    """The StepTimes of a run. launch: what the device times, if not `run`."""
    device, _ = gpu.timings(launch or run, REPEATS, graph=False)
    return StepTimes(spread(wall_times(gpu, run)), spread(device))


def product_and_gradient(gpu, workload, kernel_set):
    """(Spread of a gradient, Spread of a product, whether both were graphs)."""
    net, theta, batch = engine.on_kernels(workload, np.float32, kernel_set)
    w = gpu.xp.ascontiguousarray(gpu.xp.broadcast_to(theta, (workload.tasks, len(theta))))
    primal, v = net.primal(w, batch.x_support, batch.y_support), gpu.xp.ones(w.shape, w.dtype)

    def gradient():
        return net.gradient(w, batch.x_support, batch.y_support)

    def product():
        return net.hvp(primal, v)

    gradient_times, gradient_graph = gpu.timings(gradient, REPEATS)
    product_times, product_graph = gpu.timings(product, REPEATS)
    if gradient_graph != product_graph:  # only times of the same kind can be compared
        gradient_times, _ = gpu.timings(gradient, REPEATS, graph=False)
        product_times, _ = gpu.timings(product, REPEATS, graph=False)
    return spread(gradient_times), spread(product_times), gradient_graph and product_graph


def measure(gpu, workload):
    """The Standalone of a workload."""
    kernel_set, few = gpu.kernel_set(), few_tasks(workload)
    gradient = gpu.to_host(engine.eager(few, np.float64, kernel_set)())
    exact = distance(gradient, reference_gradient(few))
    eager = step_times(gpu, engine.eager(workload, np.float32, kernel_set))
    graph, refused = None, None
    try:
        replay = engine.graph(workload, np.float32, kernel_set)
        graph = step_times(gpu, replay, replay.launch)
    except Exception as error:  # a capture can fail for many reasons
        refused = error_line(error)
    ratio = product_and_gradient(gpu, workload, kernel_set)
    return Standalone(workload.name, exact, eager, graph, refused, *ratio)
