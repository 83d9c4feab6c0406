"""How well meta-parameters adapt to held-out tasks: the mean over tasks and its
interval.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import NonFiniteError, expect
from refmaml.execution.chunks import in_chunks
from refmaml.execution.deferred_checks import run_deferred
from refmaml.execution.device_transfer import to_device
from refmaml.ragged import RaggedBatch
from refmaml.training.distributed import SINGLE_PROCESS

# Held-out tasks come from a step that no training reaches, so that tasks of a
# regression, which has no split into training and test classes, are new too.
HELD_OUT_STEP = 2**64 - 1


@dataclass(frozen=True)
class Evaluation:
    """The metric on the query sets after adaptation, task by task: values (T,).

    quantity  "accuracy" (a fraction), for regression "loss", for policies "return"
    """

    quantity: str
    values: np.ndarray

    @property
    def mean(self):
        """The mean over tasks."""
        return float(self.values.mean())

    @property
    def interval(self):
        """The half-width 1.96 s / sqrt(T) of the 95 % interval over tasks."""
        return 1.96 * float(self.values.std(ddof=1)) / sqrt(len(self.values))

    def __str__(self):
        if self.quantity == "accuracy":
            return f"accuracy {100 * self.mean:.2f} +- {100 * self.interval:.2f} %"
        return f"{self.quantity} {self.mean:.4g} +- {self.interval:.2g}"


def outputs(net, phi, batch, transductive):
    """Outputs z (T, M, D) for the query sets, at each task's own parameters phi (T, P).

    transductive  True: the query examples of a task go through the net together, so
                  that a batch-norm uses the statistics of all (MAML). False: each goes
                  alone, after the whole support set (Nichol, Achiam, Schulman 2018,
                  section 6.1)
    """
    w = net.parameters.views(phi)
    if transductive:
        return net.forward(w, batch.x_query, keep=False)[0]
    support, query = batch.x_support.shape[2:], batch.x_query.shape[2:]
    expect(
        support == query,
        "transductive",
        "True for query images of another size than the support images",
        f"False, sizes {query} and {support}",
    )
    alone = []
    for m in range(batch.x_query.shape[1]):
        x = net.kernels.concatenate([batch.x_support, batch.x_query[:, m : m + 1]], axis=1)
        alone.append(net.forward(w, x, keep=False)[0][:, -1:])
    return net.kernels.concatenate(alone, axis=1)


def query_metric(net, phi, batch, transductive):
    """("accuracy", (T,)) or, for regression, ("loss", (T,)) of the query sets at phi
    (T, P).

    The values stay on the kernels' device.
    """
    net.check(phi, batch.x_query, batch.y_query)
    with np.errstate(all="ignore"):  # non-finite values are found below
        z = outputs(net, phi, batch, transductive)
        loss = net.loss_function.forward(net.kernels, z, batch.y_query)[0]
    ok = net.kernels.xp.isfinite(loss).all()
    net.require(ok, lambda: refuse_losses(net.kernels.to_host(loss)))
    accuracy = net.loss_function.accuracy(z, batch.y_query)
    return ("loss", loss) if accuracy is None else ("accuracy", accuracy)


def refuse_losses(loss):
    """Raise NonFiniteError naming the first task whose loss is not finite."""
    bad = ~np.isfinite(loss)
    raise NonFiniteError(
        f"query set: expected finite losses, got {bad.sum()} non-finite ones, the first",
        int(bad.argmax()),
    )


def evaluate(
    net, method, meta, sample, tasks, chunk=8, transductive=True, show=None, ranks=SINGLE_PROCESS
):
    """Adapt to each of `tasks` held-out tasks with `method`; measure on its query set.

    meta          (M,), NumPy's, or the GPU's where the net computes there
    sample        range of task numbers -> Batch
    chunk         tasks in memory at once; fewer where the GPU's memory requires it
    transductive  whether a batch-norm sees a task's query examples together; see
                  `outputs`
    Dropout drops nothing here, neither in the adaptation nor on the query set.
    show          called with the number of tasks that this rank has done so far
    ranks         the processes that share the tasks; Ctrl-C on one stops all
    Returns an Evaluation. Its values do not depend on `chunk` or on `ranks`.
    Raises ArgumentError, NonFiniteError, OutOfMemoryError.
    """
    ways = (transductive,)
    return evaluate_each_way(net, method, meta, sample, tasks, ways, chunk, show, ranks)[0]


def evaluate_each_way(
    net, method, meta, sample, tasks, ways, chunk=8, show=None, ranks=SINGLE_PROCESS
):
    """`evaluate` for each value of `transductive` in `ways`, after one adaptation.

    Returns an Evaluation for each.
    """
    expect(
        isinstance(tasks, int) and tasks >= 2,
        "tasks",
        "an integer >= 2, as an interval needs two",
        repr(tasks),
    )
    net = net.evaluation() if getattr(net, "has_dropout", False) else net
    my_tasks, parts = ranks.my_tasks(tasks), []
    measure = measurement(net, method, meta, ways)

    def run_chunk(start, stop):
        ranks.raise_if_signalled()
        try:
            parts.append(measure(sample(my_tasks[start:stop])))
        except NonFiniteError as error:
            raise error.counted_from(start) from None
        if show is not None:
            show(stop)

    def run_my_tasks():
        in_chunks(net.kernels, len(my_tasks), chunk, run_chunk)
        return parts

    with ranks.deferred_signals():
        by_rank = ranks.gather(run_my_tasks, len(my_tasks))
        ranks.should_continue(False)  # raises after a signal while this rank was waiting
    all_parts = [part for parts in by_rank for part in parts]
    return [
        Evaluation(
            name.split()[0], np.concatenate([part[name] for part in all_parts]).astype(np.float64)
        )
        for name in all_parts[0]
    ]


def measurement(net, method, meta, ways):
    """Batch -> {"accuracy 0" or "loss 0": (t,), ...}: one entry for each value in
    `ways`.
    """
    (here,) = net.kernels.to_device(meta)

    def work(net, meta, *arrays):
        batch = Batch.unchecked(*arrays)
        phi = method.adapted(net, meta, batch.x_support, batch.y_support)
        metrics = [query_metric(net, phi, batch, transductive) for transductive in ways]
        return [], {f"{quantity} {i}": values for i, (quantity, values) in enumerate(metrics)}

    def measure(batch):
        if isinstance(batch, RaggedBatch):
            parts = [measure(group) for _, group in batch.groups]
            order = np.argsort(np.concatenate([places for places, _ in batch.groups]))
            return {
                name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]
            }
        _, sets = to_device(net, (), *batch.astype(meta.dtype).sets)
        return run_deferred(net, work, here, *sets[0], *sets[1])[1]

    return measure
