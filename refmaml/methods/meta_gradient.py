"""The mean over tasks of a method's task gradients."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NoReturn, Protocol

import numpy as np

from refmaml.arrays import described
from refmaml.batch import Batch
from refmaml.errors import NonFiniteError, expect
from refmaml.layers.layer import Array
from refmaml.model import Net
from refmaml.nonfinite import refuse_vector

HYPER = "dM/d"  # begins the names of hypergradients among the figures


@dataclass(frozen=True)
class TaskGradients:
    """What a method returns for some tasks.

    loss      (T,), accuracy (T,) or None: of the query sets after adaptation
    grad      (T, M): dM_t/dmeta
    trace     {name: list over steps of arrays (T or 1, P)}
    report    {name: array (T,)}: what the method says of its own work
    """

    loss: np.ndarray
    accuracy: np.ndarray | None
    grad: Array
    trace: dict = field(default_factory=dict)
    report: dict = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Any]:
        """{name: (T,)}: loss, accuracy (not in a regression) and the report."""
        accuracy = {} if self.accuracy is None else {"accuracy": self.accuracy}
        return {"loss": self.loss, **accuracy, **self.report}


class Method(Protocol):
    """The functions of a method that `meta_gradient` and `adapt` call."""

    def init(self, net: Net, theta: Array, /) -> Array:
        """The meta-parameters (M,)."""

    def adapted(self, net: Net, meta: Array, x: Array, y: Array, /) -> Array:
        """The adapted parameters (T, P)."""

    def task_gradients(self, net: Net, meta: Array, batch: Batch, trace: bool, /) -> TaskGradients:
        """dM_t/dmeta of each task, with its loss and accuracy."""


@dataclass(frozen=True)
class MetaGradient:
    """loss, accuracy (None in a regression): means over tasks after adaptation.

    grad (M,): d loss / d meta. Weights of the batch are in loss, grad and hyper alone.
    task_losses, task_accuracies  (T,) each
    report   what the method says of its own work, (T,) each: iMAML's "cg_status", ...
    trace    with trace=True every intermediate: lists over inner steps of arrays (T, P)
    hyper    with hyper=True {name: number or (n,)}: d loss / d hyperparameter
    """

    loss: float
    accuracy: float | None
    grad: np.ndarray
    task_losses: np.ndarray
    task_accuracies: np.ndarray | None
    report: dict
    trace: dict
    hyper: dict = field(default_factory=dict)


def meta_gradient(
    method: Method,
    net: Net,
    meta: np.ndarray,
    batch: Batch,
    *,
    chunk: int | None = None,
    trace: bool = False,
    hyper: bool = False,
) -> MetaGradient:
    """dM/dmeta of M = (1/T) sum_t M_t(meta): the mean over the batch's tasks.

    With batch.weights it is M = (1/T) sum_t w_t M_t(meta).

    meta    (M,), as method.init made it: theta, then whatever else the method learns
    batch   T tasks with support and query sets
    chunk   how many tasks are in memory at once; None: as many as fit
    trace   keep every intermediate in `trace` of the result
    hyper   differentiate in the hyperparameters too: `hyper` of the result has d loss /
            d of the step size, of the update rule's fields, or of iMAML's strength

    Gradients are added in task order, so the bits do not depend on `chunk`.
    Raises ArgumentError for shapes that do not fit, NonFiniteError where numbers
    overflow, naming step, task and layer, and OutOfMemoryError.
    """
    batch = check_meta(method, net, meta, batch, chunk)
    work = MeanOverTasks(method, method.task_gradients, chunk, trace)
    if hyper:  # loaded where it is used: few calls need it
        work = import_module("refmaml.methods.hypergradients").with_hypergradients(work)
    (grad, *traces), figures = net.run(work, meta, *batch.all_arrays)
    weights = net.kernels.to_host_batched(batch.all_arrays[4:])  # one array or none
    return finalize(method, grad, figures, traces[0] if trace else {}, *weights)


@dataclass(frozen=True)
class MeanOverTasks:
    """work(net, meta, x_support, y_support, x_query, y_query, weights or nothing).

    It returns ([grad], figures), or ([grad, trace], figures) with trace.

    task_gradients  method.task_gradients, or a function with the same result
    """

    method: Method
    task_gradients: Callable[..., TaskGradients]
    chunk: int | None = None
    trace: bool = False

    def __call__(self, net: Net, meta: Array, *arrays: Array) -> tuple[list, dict[str, Array]]:
        total = net.kernels.xp.zeros(meta.shape, meta.dtype)

        def add(grad: Array) -> None:  # total += the rows of grad, one after another
            net.kernels.vector_add_rows(total[None], grad)
            ok = net.kernels.xp.isfinite(total).all()
            net.require(ok, lambda: refuse_overflow(net, total, grad))

        trace, figures = self.over_tasks(net, meta, Batch.unchecked(*arrays), add)
        return [total / len(arrays[0]), *trace], figures

    def over_tasks(
        self, net: Net, meta: Array, batch: Batch, use: Callable[[Array], None]
    ) -> tuple[list, dict[str, Array]]:
        """use(w_t grad (t, M)), `chunk` tasks at a time: ([trace] or [], figures)."""
        T, chunk, parts = len(batch), self.chunk or len(batch), []
        net.require(net.kernels.xp.isfinite(meta).all(), lambda: refuse_meta(net, meta))
        for start in range(0, T, chunk):
            some = batch if chunk >= T else batch[start : start + chunk]
            try:
                part = self.task_gradients(net, meta, some, self.trace)
                use(part.grad if some.weights is None else some.weights[:, None] * part.grad)
            except NonFiniteError as error:
                raise error.counted_from(start) from None
            parts.append(TaskGradients(part.loss, part.accuracy, None, part.trace, part.report))
        trace = [joined_traces(net.kernels, parts)] if self.trace else []
        return trace, joined_figures(net.kernels, parts)


def joined_figures(kernels: Any, parts: list[TaskGradients]) -> dict[str, Array]:
    """{name: (T,)} of the figures of some tasks each."""
    if len(parts) == 1:
        return parts[0].figures
    names = parts[0].figures
    return {name: kernels.concatenate([p.figures[name] for p in parts]) for name in names}


def joined_traces(kernels: Any, parts: list[TaskGradients]) -> dict[str, list]:
    """{name: [(T, P) for each step]} of the traces of some tasks each.

    Where some tasks took fewer steps, their last array stands for the others.
    """

    def all_rows(part: TaskGradients, name: str, k: int) -> Array:
        a = part.trace[name][min(k, len(part.trace[name]) - 1)]
        return kernels.xp.broadcast_to(a, (len(part.loss), *a.shape[1:]))

    return {
        name: [
            kernels.concatenate([all_rows(part, name, k) for part in parts])
            for k in range(max(len(part.trace[name]) for part in parts))
        ]
        for name in parts[0].trace
    }


def finalize(
    method: Any, grad: Array, figures: dict[str, Array], trace: dict | None = None,
    weights: np.ndarray | None = None,
) -> MetaGradient:  # fmt: skip
    """The MetaGradient of grad (M,) and figures, in which losses have no weights yet.

    A number that stands for a status is replaced by the label of the status.
    """

    def mean(a: Array) -> Array:  # of w_t a_t over tasks
        return np.add.reduce(a if weights is None else (weights * a.T).T) / len(a)

    figures = dict(figures)
    losses, accuracies = figures.pop("loss"), figures.pop("accuracy", None)
    names = [name for name in figures if name.startswith(HYPER)] if figures else []
    hyper = {name.removeprefix(HYPER): mean(figures.pop(name)) for name in names} if names else {}
    labels = getattr(method, "status_labels", {})
    report = {name: labels[name][a] if name in labels else a for name, a in figures.items()}
    accuracy, trace = None if accuracies is None else accuracies.mean(), trace or {}
    return MetaGradient(mean(losses), accuracy, grad, losses, accuracies, report, trace, hyper)


def check_meta(method: Method, net: Net, meta: Array, batch: Batch, chunk: int | None) -> Batch:
    """The batch in meta's precision.

    Raises ArgumentError unless meta has the length that the method gives it, batch is a
    Batch, and chunk is None or an integer >= 1.
    """
    xp = net.kernels.xp
    whole = chunk is None or (isinstance(chunk, int | np.integer) and chunk >= 1)
    expect(whole and chunk is not True, "chunk", "an integer >= 1, or None", lambda: repr(chunk))
    expect(isinstance(batch, Batch), "batch", "a refmaml.Batch", lambda: described(batch))
    M = len(method.init(net, xp.zeros(net.num_params)))
    expect(
        isinstance(meta, (np.ndarray, xp.ndarray))
        and not isinstance(meta, np.ma.MaskedArray)
        and meta.shape == (M,),
        "theta" if net.num_params == M else "meta",
        f"an array of shape ({M},)",
        lambda: described(meta),
    )
    expect(meta.dtype.kind in "fc", "theta", "a float or complex dtype", lambda: str(meta.dtype))
    return batch.astype(meta.real.dtype)


def refuse_meta(net: Net, meta: Array) -> NoReturn:
    """Raise NonFiniteError, naming the first meta-parameter that is not finite."""
    meta = net.kernels.to_host(meta)
    place = int((~np.isfinite(meta)).argmax())
    name = net.name_of(place) if place < net.num_params else ""
    raise NonFiniteError(
        f"theta: expected finite numbers, got {meta[place]} at entry {place}{name}"
    )


def refuse_overflow(net: Net, total: Array, grads: Array | None = None) -> None:
    """Raise NonFiniteError for gradients (T, M) or their sum (M,).

    The error names the first task whose gradient is not finite.
    """
    vector, task = net.kernels.to_host(total), None  # None: each is finite, their sum is not
    if grads is not None:
        rows = net.kernels.to_host(grads)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            task, vector = int(bad.argmax()), rows[bad.argmax()]
    refuse_vector(net, "meta-gradient", vector, task=task)
