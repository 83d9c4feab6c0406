"""One meta-step: the meta-gradient, the update, and the few numbers that are shown.

On a GPU all of it happens there. A step's tasks are copied over at once, with the
numbers of the optimiser that change from step to step. Losses, accuracies, the
gradient's norm and the finiteness checks come back in one copy. From the second step on
it is one CUDA graph.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from refmaml.execution.deferred_checks import Recorded, run_deferred
from refmaml.execution.device_transfer import checked, to_device
from refmaml.methods.meta_gradient import MeanOverTasks, check_meta
from refmaml.nonfinite import refuse_vector
from refmaml.ragged import RaggedBatch
from refmaml.training import optimizers

# Figures of tasks that a step hands on.
KEPT = ("loss", "accuracy", "cg_residual", "inner_residual")


class Step(NamedTuple):
    """The result of one meta-step.

    meta      the next meta-parameters (M,)
    state     the optimiser's next state, {name: array (M,)}
    loss      mean query loss over tasks, before the update
    accuracy  mean query accuracy, before the update; None for regression
    norm      |meta-gradient|
    residuals {field of Row: number}: those of the solves of an implicit gradient
    """

    meta: Any
    state: dict
    loss: float
    accuracy: float | None
    norm: float
    residuals: dict = {}


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
        kept = {n: figures[n] for n in KEPT if n in figures}
        norm2 = net.kernels.xp.square(grad, dtype=np.float64).sum()
        return [after, *state.values()], {**kept, "norm2": norm2}


def updated(net, optimizer, factors, meta, grad, state):
    """(next meta, next state), checked for non-finite numbers.

    factors  the optimiser's, on the kernels' device
    """
    if net.kernels.on_device:
        factors = [factors[i : i + 1] for i in range(len(factors))]
    with np.errstate(all="ignore"):  # the checks below find an overflow and name it
        after, state = optimizers.step(net, optimizer, meta, grad, state, factors)
    for name, a in {"parameters": after, **state}.items():
        net.require(
            net.kernels.xp.isfinite(a).all(),
            lambda a=a, name=name: refuse_vector(
                net, "the update", net.kernels.to_host(a), " (a smaller lr may help)", name
            ),
        )
    return after, state


def with_masks_of(net, step):
    """The net with the dropout masks of a meta-step; itself where it has no dropout."""
    return net.with_dropout_seed(step) if getattr(net, "has_dropout", False) else net


class MetaStep:
    """step(recipe, now) -> Step, for one recipe.

    On a GPU the first step launches kernel by kernel: it compiles the kernels and finds
    out how many tasks fit at once. The second is recorded as a CUDA graph, if the
    method's launches do not depend on its results (method.data_independent) and the
    memory suffices. Later steps replay the graph as long as their tasks have the same
    shapes. Tasks with weights, or of different sizes, are launched kernel by kernel; so
    is a net with dropout, which has other masks in each step.
    """

    def __init__(self):
        self.work, self.recorded, self.too_large = None, None, False

    def __call__(self, recipe, now):
        net, first = with_masks_of(recipe.net, now.step), self.work is None
        batch = check_meta(recipe.method, net, now.meta, recipe.sample(now.step), recipe.chunk)
        if batch.weights is not None or isinstance(batch, RaggedBatch):
            return step_along(recipe, now, batch)
        if first:
            gradient = MeanOverTasks(recipe.method, recipe.method.task_gradients, recipe.chunk)
            gradient = net.scheduled(gradient, batch)
            names = tuple(now.state)
            self.work = StepWork(gradient, recipe.optimizer, names, gradient.chunk)
        t, lr = now.step + 1, recipe.schedule(now.step)
        factors = optimizers.factors(recipe.optimizer, t, lr)
        if net.kernels.on_device:
            factors = np.array(factors, now.meta.dtype)
        capturable = getattr(recipe.method, "data_independent", False) and net is recipe.net
        run = self.replay if net.kernels.on_device and not first and capturable else self.launch
        kept, small = run(net, (factors, now.meta, *now.state.values()), batch.sets)
        accuracy = small.get("accuracy")
        return Step(
            kept[0],
            dict(zip(now.state, kept[1:], strict=True)),
            float(small["loss"].mean()),
            None if accuracy is None else float(accuracy.mean()),
            float(np.sqrt(small["norm2"])),
            residuals(small),
        )

    def launch(self, net, vectors, sets):
        """The step, kernel by kernel."""
        vectors, (support, query) = to_device(net, vectors, *sets)
        return run_deferred(net, self.work, *vectors, *support, *query)

    def replay(self, net, vectors, sets):
        """The step as a graph, which is recorded if necessary.

        Kernel by kernel where the memory does not hold the graph's own arrays.
        """
        support, query = checked(net, *sets)
        arrays = *vectors, *support, *query
        if not self.too_large and (self.recorded is None or not self.recorded.fits(arrays)):
            self.recorded = None
            net.kernels.free()
            try:
                self.recorded = Recorded(net, self.work, arrays)
            except net.kernels.out_of_memory:
                self.too_large = True
            if self.too_large:  # outside the handler, whose traceback holds the arrays
                net.kernels.free()
        return self.launch(net, vectors, sets) if self.too_large else self.recorded(*arrays)


def residuals(small):
    """{field of Row: number} of the residuals (T,) that a method reports, if any."""
    found = {}
    if "cg_residual" in small:
        found["cg_residual"] = float(small["cg_residual"].max())
    if "inner_residual" in small:
        inner = np.asarray(small["inner_residual"], np.float64)
        found["inner_residual"] = float(inner.mean())
        for name, percent in (("median", 50), ("p95", 95)):
            # One of the tasks' own values: an infinite one has no other to blend with.
            value = np.percentile(inner, percent, method="inverted_cdf")
            found[f"inner_residual_{name}"] = float(value)
    return found


def meta_step(recipe, now):
    """One Step, without a graph."""
    if recipe.ranks.size > 1:
        return distributed_meta_step(recipe, now)
    return MetaStep()(recipe, now)


def distributed_meta_step(recipe, now):
    """One Step of which each rank computes some tasks; every rank makes the same
    update.
    """
    return step_along(recipe, now, recipe.sample(now.step))


def step_along(recipe, now, batch):
    """One Step along the meta-gradient of a batch, or of one batch on each rank."""
    net, optimizer = with_masks_of(recipe.net, now.step), recipe.optimizer
    kernels = net.kernels
    out = recipe.ranks.meta_gradient(recipe.method, net, now.meta, batch, recipe.chunk)
    factors = optimizers.factors(optimizer, now.step + 1, recipe.schedule(now.step))
    if kernels.on_device:
        (factors,) = kernels.to_device(np.array(factors, now.meta.dtype))
    with recipe.ranks.identical_work():
        meta, state = updated(net, optimizer, factors, now.meta, out.grad, now.state)
    norm2 = kernels.to_host(kernels.xp.square(out.grad, dtype=np.float64).sum())
    return Step(
        meta,
        state,
        float(out.loss),
        None if out.accuracy is None else float(out.accuracy),
        float(np.sqrt(norm2)),
        residuals(out.report),
    )


def progress_to_device(kernels, now):
    """A Progress with its vectors on the kernels' device."""
    meta, *state = kernels.to_device(now.meta, *now.state.values())
    return replace(now, meta=meta, state=dict(zip(now.state, state, strict=True)))


def progress_to_host(kernels, now):
    """A Progress with its vectors as NumPy's."""
    return replace(
        now,
        meta=kernels.to_host(now.meta),
        state={name: kernels.to_host(a) for name, a in now.state.items()},
    )
