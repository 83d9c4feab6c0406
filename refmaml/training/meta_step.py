"""One meta-step: the meta-gradient, the update, and the few numbers people see of it.

On a GPU all of it happens there. A step's tasks go over in one copy, with the optimiser's numbers that change from step to step; losses,
accuracies, the gradient's norm and whether all was finite come back in one. From the second step on it is one CUDA graph.
"""

from dataclasses import dataclass, replace
from math import nan
from typing import Any, NamedTuple

import numpy as np

from refmaml.execution.deferred_checks import Recorded, run_deferred
from refmaml.execution.device_transfer import checked, to_device
from refmaml.methods.meta_gradient import MeanOverTasks, check_meta
from refmaml.nonfinite import refuse_vector


class Step(NamedTuple):
    """What one meta-step leaves: the next meta (M,) and state; the loss and accuracy (None for regression) before it, means over tasks;
    the norm of the gradient; the largest CG residual of a task (NaN for methods without)."""

    meta: Any
    state: dict
    loss: float
    accuracy: float | None
    norm: float
    residual: float = nan


@dataclass(frozen=True)
class StepWork:
    """work(net, factors, meta, *state, x_support, y_support, x_query, y_query)
    -> ([next meta, *next state], {"loss", "accuracy", ..., "norm2"}).

    gradient   the MeanOverTasks of the method, some tasks at a time
    optimizer  the outer optimiser; names: those of its state's arrays
    """

    gradient: MeanOverTasks
    optimizer: Any
    names: tuple
    chunk: int | None = None  # at most so many tasks at a time; None: as `gradient` says

    def __call__(self, net, factors, meta, *arrays):
        state, batch = dict(zip(self.names, arrays, strict=False)), arrays[len(self.names) :]
        gradient = replace(self.gradient, chunk=self.chunk) if self.chunk else self.gradient
        (grad,), figures = gradient(net, meta, *batch)
        after, state = updated(net, self.optimizer, factors, meta, grad, state)
        kept = {n: figures[n] for n in ("loss", "accuracy", "cg_residual") if n in figures}
        norm2 = net.kernels.xp.square(grad, dtype=np.float64).sum()
        return [after, *state.values()], {**kept, "norm2": norm2}


def updated(net, optimizer, factors, meta, grad, state):
    """(next meta, next state), looked at for what is not finite; the factors where the kernels compute."""
    factors = (
        [factors[i : i + 1] for i in range(len(factors))] if net.kernels.on_device else factors
    )
    with np.errstate(all="ignore"):  # an overflow is found and named, not warned about
        after, state = optimizer.step(meta, grad, state, factors, net.kernels.xp)
    for name, a in {"parameters": after, **state}.items():
        net.require(
            net.kernels.xp.isfinite(a).all(),
            lambda a=a, name=name: refuse_vector(
                net, "the update", net.kernels.to_host(a), " (a smaller lr may help)", name
            ),
        )
    return after, state


class MetaStep:
    """step(recipe, now) -> Step, for one recipe.

    On a GPU the first step goes launch by launch: it compiles the kernels and finds out how many tasks at once fit. The second is recorded,
    where the method's launches do not depend on what they compute (method.data_independent) and the memory suffices, and those after it replay
    the record, for as long as their tasks have the same shapes.
    """

    def __init__(self):
        self.work, self.recorded, self.too_large = None, None, False

    def __call__(self, recipe, now):
        net, first = recipe.net, self.work is None
        batch = check_meta(recipe.method, net, now.meta, recipe.sample(now.step), recipe.chunk)
        if first:
            gradient = MeanOverTasks(recipe.method, recipe.method.task_gradients, recipe.chunk)
            gradient = net.scheduled(gradient, batch)
            names = tuple(now.state)
            self.work = StepWork(gradient, recipe.optimizer, names, gradient.chunk)
        factors = recipe.optimizer.factors(now.step + 1, recipe.schedule(now.step))
        vectors = (
            np.array(factors, now.meta.dtype) if net.kernels.on_device else factors,
            now.meta,
            *now.state.values(),
        )
        run = (
            self.replay
            if net.kernels.on_device
            and not first
            and getattr(recipe.method, "data_independent", False)
            else self.launch
        )
        kept, small = run(net, vectors, batch.sets)
        accuracy = small.get("accuracy")
        return Step(
            kept[0],
            dict(zip(now.state, kept[1:], strict=True)),
            float(small["loss"].mean()),
            None if accuracy is None else float(accuracy.mean()),
            float(np.sqrt(small["norm2"])),
            largest_residual(small),
        )

    def launch(self, net, vectors, sets):
        """The step, kernel by kernel."""
        vectors, (support, query) = to_device(net, vectors, *sets)
        return run_deferred(net, self.work, *vectors, *support, *query)

    def replay(self, net, vectors, sets):
        """The step as a graph, recorded if need be; kernel by kernel where the graph's own memory does not fit beside the rest."""
        support, query = checked(net, *sets)
        arrays = *vectors, *support, *query
        if not self.too_large and (self.recorded is None or not self.recorded.fits(arrays)):
            self.recorded = None
            net.kernels.free()
            try:
                self.recorded = Recorded(net, self.work, arrays)
            except net.kernels.out_of_memory:
                self.too_large = True
            if self.too_large:  # only now what was recorded so far is gone
                net.kernels.free()
        return self.launch(net, vectors, sets) if self.too_large else self.recorded(*arrays)


def largest_residual(small):
    """Of what a method reports, the largest CG residual; NaN where it has none."""
    return float(small["cg_residual"].max()) if "cg_residual" in small else nan


def take(recipe, now):
    """One step by itself."""
    return MetaStep()(recipe, now) if recipe.ranks.size == 1 else take_together(recipe, now)


def take_together(recipe, now):
    """One step of which each rank computes some tasks, kernel by kernel; every rank then makes the same update."""
    net, optimizer = recipe.net, recipe.optimizer
    out = recipe.ranks.meta_gradient(
        recipe.method, net, now.meta, recipe.sample(now.step), recipe.chunk
    )
    factors = optimizer.factors(now.step + 1, recipe.schedule(now.step))
    (factors,) = (
        net.kernels.to_device(np.array(factors, now.meta.dtype))
        if net.kernels.on_device
        else (factors,)
    )
    with recipe.ranks.alike():
        meta, state = updated(net, optimizer, factors, now.meta, out.grad, now.state)
    norm = float(
        np.sqrt(net.kernels.to_host(net.kernels.xp.square(out.grad, dtype=np.float64).sum()))
    )
    return Step(
        meta,
        state,
        float(out.loss),
        None if out.accuracy is None else float(out.accuracy),
        norm,
        largest_residual(out.report),
    )


def brought(kernels, now):
    """A Progress with its vectors where the kernels compute."""
    meta, *state = kernels.to_device(now.meta, *now.state.values())
    return replace(now, meta=meta, state=dict(zip(now.state, state, strict=True)))


def taken_back(kernels, now):
    """A Progress with its vectors as NumPy's."""
    return replace(
        now,
        meta=kernels.to_host(now.meta),
        state={name: kernels.to_host(a) for name, a in now.state.items()},
    )
