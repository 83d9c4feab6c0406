"""Tasks of different sizes: each group of equal sizes runs as an ordinary batch.

So every number has the bits of its task alone. Results come back in task order, and
gradients are added in task order, as in a batch of one size.
"""

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import ArgumentError, NonFiniteError, expect
from refmaml.methods.meta_gradient import (
    MeanOverTasks,
    TaskGradients,
    joined_traces,
    refuse_overflow,
)
from refmaml.ragged import by_shape, check_list, in_task, joined, stacked, taken


class RowsOfTasks(MeanOverTasks):
    """As MeanOverTasks, but returns the gradients of the tasks, (T, M)."""

    def __call__(self, net, meta, *arrays):
        gradients = []

        def keep(grad):
            ok = net.kernels.xp.isfinite(grad).all()
            net.require(ok, lambda: refuse_overflow(net, grad[0], grad))
            gradients.append(grad)

        trace, figures = self.over_tasks(net, meta, Batch.unchecked(*arrays), keep)
        one_chunk = len(gradients) == 1
        rows = gradients[0] if one_chunk else net.kernels.concatenate(gradients)
        return [rows, *trace], figures


def run_in_groups(net, work, first, *arrays):
    """net.run(work, first, *arrays), of arrays that are lists of the tasks' arrays.

    first   the meta-parameters (M,); weights (T,) may be the last array
    Returns (vectors, figures) in task order.
    Raises what net.run raises, with the numbers of tasks counted in the lists.
    """
    lists = expect_lists(arrays)
    (here,) = net.kernels.to_device(first)
    mean = isinstance(work, MeanOverTasks) and not isinstance(work, RowsOfTasks)
    rows = RowsOfTasks(work.method, work.task_gradients, work.chunk, work.trace) if mean else work
    groups = by_shape(*lists)
    parts = [run_group(net, rows, here, arrays, places) for places in groups]
    order = np.argsort(np.concatenate(groups))
    vectors = joined_vectors(net.kernels, parts, order)
    figures = [figures for _, figures in parts]
    figures = {name: np.concatenate([f[name] for f in figures])[order] for name in figures[0]}
    if mean:
        vectors[0] = added(net, vectors[0]) / len(order)
    return [net.match_input(a, first) for a in vectors], figures


def expect_lists(arrays):
    """Those of `arrays` that are lists. Raises ArgumentError where these do not fit."""
    lists = arrays[: len(arrays) // 2 * 2]  # inputs and targets in pairs
    for name, a in zip("xy" * len(lists), lists, strict=False):
        check_list(name, a, lists[0])
    return lists


def run_group(net, work, here, arrays, places):
    """(vectors, figures) of the tasks `places` as an ordinary batch."""
    try:
        return net.run(work, here, *stacked(arrays, places, net.kernels))
    except NonFiniteError as error:
        task = None if error.task is None else places[error.task]
        raise NonFiniteError(error.text, task) from None
    except ArgumentError:
        for t in places:  # the error names the task where the task alone has it, too
            alone = stacked(arrays, [t], net.kernels)
            for x, y in zip(alone[::2], alone[1::2], strict=False):
                try:
                    net.check_set(x, y)
                except ArgumentError as error:
                    raise in_task(error, t) from None
        raise


def joined_vectors(kernels, parts, order):
    """Vectors (T, P), and a trace if there is one, in task order.

    parts  (vectors, figures) of each group
    order  for each task its place among the groups' tasks
    """
    vectors = []
    for one in zip(*(of_group for of_group, _ in parts), strict=True):
        if isinstance(one[0], dict):
            tasks = [
                TaskGradients(figures["loss"], None, None, trace)
                for (_, figures), trace in zip(parts, one, strict=True)
            ]
            trace = joined_traces(kernels, tasks)
            vectors.append(
                {name: [taken(kernels, a, order) for a in steps] for name, steps in trace.items()}
            )
        else:
            vectors.append(taken(kernels, joined(kernels, one), order))
    return vectors


def added(net, rows):
    """The sum of rows (T, M), one after another. Raises NonFiniteError."""
    total = net.kernels.xp.zeros(rows.shape[1], rows.dtype)
    with np.errstate(all="ignore"):
        net.kernels.vector_add_rows(total[None], rows)
    if not net.kernels.xp.isfinite(total).all():
        refuse_overflow(net, total)
    return total


def rows_in_groups(function, kernels, w, x, y):
    """function(w, x, y), a row for each task, of lists x and y; w (T or 1, P)."""
    expect_lists((x, y))
    expect(
        len(w) in (1, len(x)), "w", f"a row for each of {len(x)} tasks, or one", f"{len(w)} rows"
    )
    groups = by_shape(x, y)
    parts = []
    for places in groups:
        rows = w if len(w) == 1 else taken(kernels, w, places)
        parts.append(function(rows, *stacked((x, y), places, kernels)))
    return taken(kernels, joined(kernels, parts), np.argsort(np.concatenate(groups)))
