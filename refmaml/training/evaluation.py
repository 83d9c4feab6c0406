"""How well a start adapts to tasks it has not seen: the mean over tasks, and how far to trust that mean."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import NonFiniteError, expect
from refmaml.execution.chunks import in_chunks
from refmaml.execution.deferred_checks import run_deferred
from refmaml.execution.device_transfer import to_device
from refmaml.training.distributed import ALONE

# Held-out tasks come from a step no training reaches: regression tasks, which have no split, are new too.
HELD_OUT_STEP = 2**64 - 1


@dataclass(frozen=True)
class Evaluation:
    """The query set's figure after adaptation, task by task: values (T,).

    quantity  "accuracy" (a fraction) or, for regression, "loss"
    """

    quantity: str
    values: np.ndarray

    @property
    def mean(self):
        """The mean over tasks."""
        return float(self.values.mean())

    @property
    def interval(self):
        """The half-width 1.96 s / sqrt(T) of the 95 % confidence interval over tasks."""
        return 1.96 * float(self.values.std(ddof=1)) / sqrt(len(self.values))

    def __str__(self):
        if self.quantity == "accuracy":
            return f"accuracy {100 * self.mean:.2f} +- {100 * self.interval:.2f} %"
        return f"loss {self.mean:.4g} +- {self.interval:.2g}"


def outputs(net, phi, batch, transductive):
    """The outputs z (T, M, D) for the query sets, at each task's own parameters phi (T, P).

    transductive  the query examples of a task go through the net together, so that a batch-norm sees them all (MAML); or else each goes
                  alone, behind the whole support set (Nichol, Achiam, Schulman 2018, section 6.1)
    """
    w = net.parameters.views(phi)
    if transductive:
        return net.forward(w, batch.x_query, keep=False)[0]
    alone = []
    for m in range(batch.x_query.shape[1]):
        x = net.kernels.concatenate([batch.x_support, batch.x_query[:, m : m + 1]], axis=1)
        alone.append(net.forward(w, x, keep=False)[0][:, -1:])
    return net.kernels.concatenate(alone, axis=1)


def judged(net, phi, batch, transductive):
    """("accuracy", (T,)) or, in a regression, ("loss", (T,)) of the query sets at phi (T, P); where the kernels compute."""
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


def evaluate(net, method, meta, sample, tasks, chunk=8, transductive=True, show=None, ranks=ALONE):
    """Adapt to each of `tasks` held-out tasks with `method`, then judge on its query set.

    meta          NumPy's, or the GPU's where the net computes there
    sample        range of task numbers -> Batch
    transductive  whether query examples may see each other, in a batch-norm; see `outputs`
    show          where given, is called with the number of tasks done so far on this rank
    ranks         who computes them; a Ctrl-C on one of several stops all
    Returns an Evaluation. The values do not depend on `chunk` or on ranks; where the GPU's memory does not hold so many tasks, fewer are
    taken. Raises ArgumentError, NonFiniteError, OutOfMemoryError.
    """
    return evaluate_each_way(net, method, meta, sample, tasks, (transductive,), chunk, show, ranks)[
        0
    ]


def evaluate_each_way(net, method, meta, sample, tasks, ways, chunk=8, show=None, ranks=ALONE):
    """`evaluate` for each value of `transductive` in `ways`, after one adaptation: an Evaluation for each."""
    expect(
        isinstance(tasks, int) and tasks >= 2,
        "tasks",
        "an integer >= 2, as an interval needs two",
        repr(tasks),
    )
    (here,), mine, parts = net.kernels.to_device(meta), ranks.mine(tasks), []

    def work(net, meta, *arrays):
        batch = Batch(*arrays)
        phi = method.adapted(net, meta, batch.x_support, batch.y_support)
        figures = [judged(net, phi, batch, transductive) for transductive in ways]
        return [], {f"{quantity} {i}": values for i, (quantity, values) in enumerate(figures)}

    def take(start, stop):
        ranks.stop_if_asked()
        _, sets = to_device(net, (), *sample(mine[start:stop]).astype(meta.dtype).sets)
        try:
            _, figures = run_deferred(net, work, here, *sets[0], *sets[1])
        except NonFiniteError as error:
            raise error.counted_from(start) from None
        parts.append(figures)
        if show is not None:
            show(stop)

    def judge():
        in_chunks(net.kernels, len(mine), chunk, take)
        return parts

    with ranks.interruptible():
        everybodys = [part for of_a_rank in ranks.gather(judge, len(mine)) for part in of_a_rank]
        ranks.go_on(False)  # after a Ctrl-C that came while the others were waited for
    return [
        Evaluation(
            name.split()[0], np.concatenate([part[name] for part in everybodys]).astype(np.float64)
        )
        for name in everybodys[0]
    ]
