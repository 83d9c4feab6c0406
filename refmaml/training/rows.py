"""The learning curve: a row for each meta-step, kept as one table of numbers however many there are."""

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One step of the learning curve: query loss and accuracy after adaptation, means over the step's tasks.

    step         1, 2, ...
    accuracy     a fraction; NaN for regression
    grad_norm    |meta-gradient|, before the update
    seconds      spent on meta-steps since training began, pauses between runs left out
    cg_residual  the largest |b - A u| / |b| that conjugate gradients left in a task; NaN for methods without them
    """

    step: int
    loss: float
    accuracy: float
    grad_norm: float
    seconds: float
    cg_residual: float = nan


class Rows(Sequence):
    """A sequence of Rows, from which a slice takes Rows again, without copying a number.

    table  (n, len(Row._fields)) float64: a million steps are 40 MB here, and some 250 MB as objects
    """

    def __init__(self, rows=()):
        self._room = np.array(list(rows), np.float64).reshape(-1, len(Row._fields))
        self._count = len(self._room)

    @classmethod
    def of(cls, table):
        """Rows that are the lines of `table` (n, columns), a float64 array that nobody else writes to."""
        rows = cls()
        rows._room, rows._count = table, len(table)
        return rows

    @property
    def table(self):
        """The numbers, a line for each row, columns in the order of Row's fields."""
        return self._room[: self._count]

    def column(self, name):
        """One field of every row, (n,)."""
        return self.table[:, Row._fields.index(name)]

    def put(self, row):
        """Make `row`, of step t, the t-th and last row."""
        at = row.step - 1
        if at >= len(self._room):
            room = np.empty((max(64, 2 * at), len(Row._fields)))
            room[: self._count] = self.table
            self._room = room
        self._room[at] = row
        self._count = at + 1

    def __len__(self):
        return self._count

    def __getitem__(self, place):
        if isinstance(place, slice):
            return Rows.of(self.table[place])
        step, *rest = self.table[place].tolist()
        return Row(int(step), *rest)

    def __iter__(self):
        for start in range(
            0, self._count, 4096
        ):  # a loop over NumPy's rows one by one is ten times as slow
            for step, *rest in self.table[start : start + 4096].tolist():
                yield Row(int(step), *rest)

    def __eq__(self, other):
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self):
        return (
            f"Rows({list(self)!r})"
            if self._count <= 3
            else f"<{self._count} Rows, the last {self[-1]}>"
        )
