"""The learning curve: one row for each meta-step, stored as one table of numbers."""

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One meta-step of the learning curve. Loss and accuracy are means over its tasks.

    step         1, 2, ...
    loss         query loss after adaptation
    accuracy     query accuracy after adaptation, a fraction; NaN for regression
    grad_norm    |meta-gradient|, before the update
    seconds      spent on meta-steps since training began, without pauses between runs
    cg_residual  the largest |b - A u| / |b| that conjugate gradients left in a task;
                 NaN for methods without them
    inner_residual  |grad F| / |lambda (phi - theta)| of iMAML's inner problem, the mean
                 over the step's tasks; NaN for methods without one
    inner_residual_median, inner_residual_p95  its median and 95th percentile over the
                 tasks, each the value of a task (nearest rank)
    The rest is NaN but for policies, whose loss is minus the mean return:
    return_before  the mean return before adaptation
    kl           the mean KL divergence of the adapted policies from those before the
                 step; 0 where the line search accepted no step
    sigma        the mean over action dimensions of the policy's sigma, after the step
    processor_seconds  the processor's time of this step
    """

    step: int
    loss: float
    accuracy: float
    grad_norm: float
    seconds: float
    cg_residual: float = nan
    inner_residual: float = nan
    inner_residual_median: float = nan
    inner_residual_p95: float = nan
    return_before: float = nan
    kl: float = nan
    sigma: float = nan
    processor_seconds: float = nan


# Left out of files where no row has a value.
OPTIONAL = Row._fields[5:]
RESIDUALS = OPTIONAL[:4]  # of methods with an inner solver


class Rows(Sequence):
    """A sequence of Rows. A slice is again Rows, a view without a copy.

    table  (n, len(Row._fields)) float64. A million steps take 72 MB; as Row objects
           they would take about 350 MB
    """

    def __init__(self, rows=()):
        self._capacity = np.array(list(rows), np.float64).reshape(-1, len(Row._fields))
        self._count = len(self._capacity)

    @classmethod
    def of(cls, table):
        """The Rows of `table` (n, columns), a float64 array, which is not copied."""
        rows = cls()
        rows._capacity, rows._count = table, len(table)
        return rows

    @property
    def table(self):
        """The numbers, one line for each row, columns in the order of Row's fields."""
        return self._capacity[: self._count]

    def column(self, name):
        """One field of every row, (n,)."""
        return self.table[:, Row._fields.index(name)]

    def put(self, row):
        """Make `row`, of step t, the t-th row and the last one."""
        at = row.step - 1
        if at >= len(self._capacity):
            larger = np.empty((max(64, 2 * at), len(Row._fields)))
            larger[: self._count] = self.table
            self._capacity = larger
        self._capacity[at] = row
        self._count = at + 1

    def __len__(self):
        return self._count

    def __getitem__(self, place):
        if isinstance(place, slice):
            return Rows.of(self.table[place])
        step, *rest = self.table[place].tolist()
        return Row(int(step), *rest)

    def __iter__(self):
        # In blocks: a loop over NumPy's rows one by one is ten times as slow.
        for start in range(0, self._count, 4096):
            for step, *rest in self.table[start : start + 4096].tolist():
                yield Row(int(step), *rest)

    def __eq__(self, other):
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self):
        if self._count <= 3:
            return f"Rows({list(self)!r})"
        return f"<{self._count} Rows, the last {self[-1]}>"
