"""How well a start adapts to tasks it has not seen: the mean over tasks, and how far to trust that mean."""
from dataclasses import dataclass
from math import sqrt

import numpy as np

from refmaml.errors import NonFiniteError, expect
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
    """At each task's own parameters phi (T, P): ("accuracy", (T,)) or, in a regression, ("loss", (T,))."""
    net.check(phi, x, y)
    with np.errstate(all="ignore"):                       # non-finite values are found below
        z, _ = net.forward(net.parameters.views(phi), x, keep=False)
        loss = net.loss_function.forward(net.kernels, z, y)[0]
    if not np.isfinite(loss).all():
        raise NonFiniteError(f"query set: expected finite losses, got {(~np.isfinite(loss)).sum()} non-finite ones, the first",
                             int((~np.isfinite(loss)).argmax()))
    accuracy = net.loss_function.accuracy(z, y)
    return ("loss", loss) if accuracy is None else ("accuracy", accuracy)


def evaluate(net, method, meta, sample, tasks, chunk=8, show=None, ranks=ALONE):
    """Adapt to each of `tasks` held-out tasks with `method`, then judge on its query set.

    sample  range of task numbers -> Batch; show, where given, is called with the number of tasks done so far on this rank
    ranks   who computes them
    Returns an Evaluation. The values do not depend on `chunk` or on ranks. Raises ArgumentError, NonFiniteError.
    """
    expect(isinstance(tasks, int) and tasks >= 2, "tasks", "an integer >= 2, as an interval needs two",
           repr(tasks))
    mine = ranks.mine(tasks)

    def judge():
        parts = []
        for start in range(0, len(mine), chunk):
            batch = sample(mine[start:start + chunk]).astype(meta.dtype)
            try:
                phi = method.adapt(net, meta, batch.x_support, batch.y_support)
                parts.append(outcomes(net, phi, batch.x_query, batch.y_query))
            except NonFiniteError as error:
                raise error.counted_from(start) from None
            if show is not None:
                show(min(start + chunk, len(mine)))
        return parts
    parts = [part for of_a_rank in ranks.gather(judge, len(mine)) for part in of_a_rank]
    return Evaluation(parts[0][0], np.concatenate([values for _, values in parts]).astype(np.float64))
