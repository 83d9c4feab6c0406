"""The mean over tasks of a method's task gradients, in chunks so that memory does not grow with their number."""

from dataclasses import dataclass, field

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import ArgumentError, NonFiniteError, expect
from refmaml.execution.chunks import in_chunks
from refmaml.execution.deferred_checks import run_deferred
from refmaml.execution.device_transfer import bring
from refmaml.nonfinite import refuse_vector, require_finite

MEMORY, VECTORS = (
    3 << 23,
    8,
)  # numbers held at once, unless two tasks need more; vectors (P,) of a task alive at a time


@dataclass(frozen=True)
class TaskGradients:
    """What a method returns for a few tasks: losses (T,), accuracies (T,) or None, gradients (T, M) and, by name, whatever it
    traced (lists over steps of arrays (T or 1, P)) and reports (arrays (T,))."""

    loss: np.ndarray
    accuracy: np.ndarray | None
    grad: np.ndarray
    trace: dict = field(default_factory=dict)
    report: dict = field(default_factory=dict)


@dataclass(frozen=True)
class MetaGradient:
    """loss, accuracy (None for regression): means over tasks of the query set after adaptation. grad (M,): d loss / d meta.

    task_losses, task_accuracies  (T,) each
    report   what the method says of its own work, by name, (T,) each: e.g. iMAML's "cg_status" and "cg_residual"
    trace    with trace=True every intermediate by name: lists over inner steps of arrays (T, P)
    """

    loss: float
    accuracy: float | None
    grad: np.ndarray
    task_losses: np.ndarray
    task_accuracies: np.ndarray | None
    report: dict
    trace: dict


def meta_gradient(method, net, meta, batch, *, chunk=None, trace=False):
    """Mean over the batch's tasks of the gradient of the loss after adaptation, d/dmeta (1/T) sum_t M_t(meta).

    meta (M,) as method.init made it; batch: tasks with support and query sets; chunk: how many tasks are in memory at once
    (None: as many as fit into MEMORY; on a GPU all of them, and fewer if those do not fit).
    Gradients are added in task order, so the bits do not depend on `chunk`.
    On a GPU meta and batch may be NumPy's arrays or CuPy's: grad and trace come back as meta came, all else as NumPy's.
    Raises ArgumentError for shapes that do not fit, NonFiniteError where numbers overflow, naming step, task and layer, OutOfMemoryError.
    """
    batch = check_meta(method, net, meta, batch, chunk)
    (here,), sets = bring(net, (meta,), *batch.sets)
    kept, small = run_deferred(net, GradientWork(method, chunk, trace), here, *sets[0], *sets[1])
    return finalize(method, net, meta, kept, small)


class GradientWork:
    """work(net, meta, x_support, y_support, x_query, y_query) -> ([grad], {"loss", "accuracy" unless a regression, and the method's
    reports: (T,) each}), as deferred_checks.py wants it; with `trace` its dict is kept behind grad.

    chunk   how many tasks at once; it falls where the GPU's memory ends
    """

    def __init__(self, method, chunk=None, trace=False):
        self.method, self.chunk, self.trace = method, chunk, trace

    def __call__(self, net, meta, *arrays):
        k, batch = net.kernels, Batch(*arrays)
        total = k.xp.zeros(meta.shape, meta.dtype)

        def add(grad):
            k.vector_add_rows(total[None], grad)
            require_finite(
                net, total, lambda net, total: refuse_overflow(net, total, k.to_host(grad))
            )

        small, trace = self.over_chunks(net, meta, batch, add)
        return [total / len(batch), *trace], small

    def over_chunks(self, net, meta, batch, use):
        """(the (T,) for people, [the trace, if wanted]); use(gradients (t, M)) of chunk after chunk."""
        k, parts = net.kernels, []
        require_finite(net, meta, refuse_meta)

        def take(start, stop):
            some = batch if stop - start == len(batch) else batch[start:stop]
            try:
                part = self.method.task_gradients(net, meta, some, self.trace)
                use(part.grad)
            except NonFiniteError as error:
                raise error.counted_from(start) from None
            parts.append(TaskGradients(part.loss, part.accuracy, None, part.trace, part.report))

        self.chunk = in_chunks(
            k, len(batch), self.chunk or tasks_at_once(self.method, net, batch), take
        )
        trace = [joined(k, [(p.trace, len(p.loss)) for p in parts])] if self.trace else []
        return {
            name: rows(k, [numbers(p)[name] for p in parts]) for name in numbers(parts[0])
        }, trace


class RowsWork(GradientWork):
    """The same, but that the gradients are kept as they are, a list of arrays (t, M), for others to add up."""

    def __call__(self, net, meta, *arrays):
        gradients = []

        def keep(grad):
            require_finite(net, grad, lambda net, grad: refuse_overflow(net, None, grad))
            gradients.append(grad)

        small, _ = self.over_chunks(net, meta, Batch(*arrays), keep)
        return gradients, small


def numbers(part):
    """{name: (T,)} of what a chunk says for people."""
    return {
        "loss": part.loss,
        **({} if part.accuracy is None else {"accuracy": part.accuracy}),
        **part.report,
    }


def rows(kernels, arrays):
    """Arrays (t,) of chunks as one (T,)."""
    return arrays[0] if len(arrays) == 1 else kernels.concatenate(arrays)


def finalize(method, net, meta, kept, small):
    """The MetaGradient of what GradientWork left, its vectors as meta came, reports in words where the method has words for them."""
    losses, accuracies = small.pop("loss"), small.pop("accuracy", None)
    trace = {
        name: [net.kernels.match_input(a, meta) for a in steps]
        for part in kept[1:]
        for name, steps in part.items()
    }
    words = getattr(method, "words", {})
    report = {name: words[name][a] if name in words else a for name, a in small.items()}
    return MetaGradient(
        losses.mean(),
        None if accuracies is None else accuracies.mean(),
        net.kernels.match_input(kept[0], meta),
        losses,
        accuracies,
        report,
        trace,
    )


def refuse_meta(net, meta):
    """Raise NonFiniteError for meta-parameters that are not finite, naming the first."""
    place = int((~np.isfinite(meta)).argmax())
    raise NonFiniteError(
        f"theta: expected finite numbers, got {meta[place]} at entry {place}"
        f"{net.name_of(place) if place < net.num_params else ''}"
    )


def refuse_overflow(net, total, grads=None):
    """Raise NonFiniteError for gradients (T, M), or their sum (M,), that are not finite, naming the first task and parameter."""
    bad = np.zeros(0, bool) if grads is None else ~np.isfinite(grads).all(axis=1)
    task = int(bad.argmax()) if bad.any() else None  # None: each is finite, their sum is not
    refuse_vector(net, "meta-gradient", total if task is None else grads[task], task=task)


def tasks_at_once(method, net, batch):
    """How many tasks, in chunks of equal size, whose vectors and activations, with their adjoints, fit into MEMORY.

    Where the inner loop is one kernel it is threads that hold activations, and tasks no more than their vectors."""
    steps = method.inner_steps if getattr(method, "kept", "last") == "passes" else 1
    held = (VECTORS + steps) * net.num_params + 2 * steps * net.activations(
        batch.x_support.shape[1:]
    )
    if net.kernels.on_device:
        return len(batch)
    if (
        getattr(method, "run_fused", False)
        and hasattr(net, "chain")
        and net.chain(batch.x_support.shape[2:], batch.x_support.dtype)
    ):
        held = VECTORS * net.num_params
    most = max(2, MEMORY // held)
    return -(-len(batch) // -(-len(batch) // most))


def check_meta(method, net, meta, batch, chunk):
    """The batch in meta's precision; ArgumentError unless meta has the length the method gives it and `chunk` is a number of tasks."""
    xp = net.kernels.xp
    expect(
        chunk is None or (isinstance(chunk, int) and chunk >= 1),
        "chunk",
        "an integer >= 1, or None",
        lambda: repr(chunk),
    )
    M = len(method.init(net, xp.zeros(net.num_params)))
    expect(
        isinstance(meta, (np.ndarray, xp.ndarray)) and meta.shape == (M,),
        "theta" if net.num_params == M else "meta",
        f"an array of shape ({M},)",
        lambda: f"{type(meta).__name__} of shape {getattr(meta, 'shape', None)}",
    )
    expect(meta.dtype.kind in "fc", "theta", "a float or complex dtype", lambda: str(meta.dtype))
    if len(batch) == 0:
        raise ArgumentError("batch: expected at least one task, got none")
    return batch.astype(meta.real.dtype)


def joined(kernels, traces):
    """Traces of chunks, [({name: [array (t or 1, P), ...]}, t), ...], as one {name: [array (T, P), ...]}."""

    def all_rows(a, t):
        return kernels.xp.broadcast_to(a, (t, *a.shape[1:]))

    return {
        name: [
            kernels.concatenate([all_rows(trace[name][k], t) for trace, t in traces])
            for k in range(len(values))
        ]
        for name, values in traces[0][0].items()
    }
