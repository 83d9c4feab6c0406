"""How well a start adapts to tasks it has not seen: the mean over tasks, and how far to trust that mean."""
from dataclasses import dataclass
from math import sqrt

import numpy as np

from refmaml.boundary import bring
from refmaml.chunks import in_chunks
from refmaml.errors import NonFiniteError, expect
from refmaml.finite import require_finite
from refmaml.methods.one_look import one_look
from refmaml.training.ranks import ALONE

# Held-out tasks come from a step no training reaches: regression tasks, which have no split, are new too.
HELD_OUT_STEP = 2 ** 64 - 1


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


def outcomes(net, phi, x, y):
    """At each task's own parameters phi (T, P): ("accuracy", (T,)) or, in a regression, ("loss", (T,)), NumPy's arrays."""
    (phi,), ((x, y),) = bring(net, (phi,), (x, y))
    _, figures = one_look(net, judged, phi, x, y)
    return next(iter(figures.items()))


def judged(net, phi, x, y):
    """The query set's figure at phi, as work for one_look."""
    net.check(phi, x, y)
    with np.errstate(all="ignore"):                       # non-finite values are found below
        z, _ = net.forward(net.parameters.views(phi), x, keep=False)
        loss = net.loss_function.forward(net.kernels, z, y)[0]
    require_finite(net, loss, refuse_losses)
    accuracy = net.loss_function.accuracy(z, y)
    return [], {"loss": loss} if accuracy is None else {"accuracy": accuracy}


def refuse_losses(net, loss):
    """Raise NonFiniteError naming the first task whose loss is not finite."""
    bad = ~np.isfinite(loss)
    raise NonFiniteError(f"query set: expected finite losses, got {bad.sum()} non-finite ones, the first", int(bad.argmax()))


def evaluate(net, method, meta, sample, tasks, chunk=8, show=None, ranks=ALONE):
    """Adapt to each of `tasks` held-out tasks with `method`, then judge on its query set.

    meta    NumPy's, or the GPU's where the net computes there
    sample  range of task numbers -> Batch; show, where given, is called with the number of tasks done so far on this rank
    ranks   who computes them
    Returns an Evaluation. The values do not depend on `chunk` or on ranks; where the GPU's memory does not hold so many tasks, fewer are
    taken. Raises ArgumentError, NonFiniteError, OutOfMemoryError.
    """
    expect(isinstance(tasks, int) and tasks >= 2, "tasks", "an integer >= 2, as an interval needs two",
           repr(tasks))
    mine, (here,) = ranks.mine(tasks), net.kernels.bring(meta)

    def work(net, meta, x_support, y_support, x_query, y_query):
        return judged(net, method.adapted(net, meta, x_support, y_support), x_query, y_query)

    def judge():
        parts = []

        def take(start, stop):
            _, (support, query) = bring(net, (), *sample(mine[start:stop]).astype(meta.dtype).sets)
            try:
                _, figures = one_look(net, work, here, *support, *query)
            except NonFiniteError as error:
                raise error.counted_from(start) from None
            parts.append(next(iter(figures.items())))
            if show is not None:
                show(stop)
        in_chunks(net.kernels, len(mine), chunk, take)
        return parts
    parts = [part for of_a_rank in ranks.gather(judge, len(mine)) for part in of_a_rank]
    return Evaluation(parts[0][0], np.concatenate([values for _, values in parts]).astype(np.float64))
