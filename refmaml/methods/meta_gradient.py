"""The mean over tasks of a method's task gradients, in chunks so that memory does not grow with their number."""
from dataclasses import dataclass, field, replace

import numpy as np

from refmaml.errors import ArgumentError, NonFiniteError, expect

MEMORY, VECTORS = 3 << 23, 8      # numbers held at once, unless two tasks need more; vectors (P,) of a task alive at a time


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
    (None: as many as fit into MEMORY).
    Gradients are added in task order, so the bits do not depend on `chunk`.
    Raises ArgumentError for shapes that do not fit, NonFiniteError where numbers overflow, naming step, task and layer.
    """
    total, parts = np.zeros_like(meta), []
    for part in task_gradients(method, net, meta, batch, chunk, trace):
        net.kernels.vector_add_rows(total[None], part.grad)
        parts.append(replace(part, grad=None))
        del part                                             # its gradients, before the next chunk's come
    return mean_over_tasks(net, total, parts)


def task_gradients(method, net, meta, batch, chunk=None, trace=False):
    """The TaskGradients of the batch's tasks, chunk after chunk; arguments and errors as of meta_gradient."""
    expect(chunk is None or (isinstance(chunk, int) and chunk >= 1), "chunk", "an integer >= 1, or None", lambda: repr(chunk))
    batch = check_meta(method, net, meta, batch)
    chunk = chunk or tasks_at_once(method, net, batch)
    for start in range(0, len(batch), chunk):
        try:
            part = method.task_gradients(net, meta, batch if chunk >= len(batch) else batch[start:start + chunk], trace)
            if not np.isfinite(part.grad).all():
                refuse_overflow(net, part.grad)
        except NonFiniteError as error:
            raise error.counted_from(start) from None
        yield part
        del part                                             # its gradients, before the next chunk's come


def mean_over_tasks(net, total, parts):
    """The MetaGradient, from the sum of all tasks' gradients (M,), added in task order, and the rest of their TaskGradients in that order.

    Raises NonFiniteError where the sum overflowed."""
    if not np.isfinite(total).all():
        refuse_overflow(net, total)
    losses = np.concatenate([p.loss for p in parts])
    accuracies = None if parts[0].accuracy is None else np.concatenate([p.accuracy for p in parts])
    report = {name: np.concatenate([p.report[name] for p in parts]) for name in parts[0].report}
    return MetaGradient(losses.mean(), None if accuracies is None else accuracies.mean(), total / len(losses), losses,
                        accuracies, report, joined([(p.trace, len(p.loss)) for p in parts]))


def refuse_overflow(net, grad):
    """Raise NonFiniteError for gradients (T, M), or their sum (M,), that are not finite, naming the first task and parameter."""
    bad = ~np.isfinite(grad)
    task = int(bad.any(axis=1).argmax()) if bad.ndim == 2 else None    # None: each is finite, their sum is not
    bad = bad if task is None else bad[task]
    place = int(bad.argmax())
    raise NonFiniteError(f"meta-gradient: expected finite numbers, got {bad.sum()} non-finite ones, the first at entry "
                         f"{place}{net.name_of(place) if place < net.num_params else ''}", task)


def tasks_at_once(method, net, batch):
    """How many tasks, in chunks of equal size, whose vectors and activations, with their adjoints, fit into MEMORY.

    Where the inner loop is one kernel it is threads that hold activations, and tasks no more than their vectors."""
    steps = method.inner_steps if getattr(method, "kept", "last") == "passes" else 1
    held = (VECTORS + steps) * net.num_params + 2 * steps * net.activations(batch.x_support.shape[1:])
    if getattr(method, "in_one_go", False) and hasattr(net, "chain") and net.chain(batch.x_support.shape[2:], batch.x_support.dtype):
        held = VECTORS * net.num_params
    most = max(2, MEMORY // held)
    return -(-len(batch) // -(-len(batch) // most))


def check_meta(method, net, meta, batch):
    """The batch in meta's precision; ArgumentError unless meta is finite and has the length the method gives it."""
    M = len(method.init(net, np.zeros(net.num_params)))
    expect(isinstance(meta, np.ndarray) and meta.shape == (M,), "theta" if net.num_params == M else "meta",
           f"an array of shape ({M},)", lambda: f"{type(meta).__name__} of shape {getattr(meta, 'shape', None)}")
    expect(meta.dtype.kind in "fc", "theta", "a float or complex dtype", lambda: str(meta.dtype))
    if not np.isfinite(meta).all():
        place = int((~np.isfinite(meta)).argmax())
        raise NonFiniteError(f"theta: expected finite numbers, got {meta[place]} at entry {place}"
                             f"{net.name_of(place) if place < net.num_params else ''}")
    if len(batch) == 0:
        raise ArgumentError("batch: expected at least one task, got none")
    return batch.astype(meta.real.dtype)


def joined(traces):
    """Traces of chunks, [({name: [array (t or 1, P), ...]}, t), ...], as one {name: [array (T, P), ...]}."""
    def rows(a, t):
        return np.broadcast_to(a, (t, *a.shape[1:]))
    return {name: [np.concatenate([rows(trace[name][k], t) for trace, t in traces]) for k in range(len(values))]
            for name, values in traces[0][0].items()}
