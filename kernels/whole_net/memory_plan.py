"""Where the values and adjoints of a net are in `work`.

A value or an adjoint has memory of its own, with these exceptions:

    a Fork      both outputs are its input, and the adjoint of the first one is that of
                its input: the operation that reads the second output writes to DX2,
                which the Fork adds
    a Sum       the adjoint of an input is that of the sum. The second one is a copy, at
                DX2, where the operations before the Sum change it
    if lean     the adjoint of the input of a norm or an activation is where that input
                is; other adjoints share memory, if one is read for the last time before
                the other is written
"""

import numpy as np

from refmaml.kernels.whole_net import columns as at
from refmaml.kernels.whole_net.graph import NORMS, changes_its_adjoint, readers
from refmaml.kernels.whole_net.operations import ABSENT, Activate, Fork, GroupNorm, Sum


def whole_lines(size):
    """`size` rounded up so that the next array begins at a cache line,
    in float32 too.
    """
    return -(-size // 16) * 16


class Places:
    """Hands out places one after another; `end` is behind the last."""

    def __init__(self):
        self.end = 0

    def take(self, size):
        start, self.end = self.end, self.end + whole_lines(int(size))
        return start


def plan_memory(table, nodes, N, lean):
    """Gives every value and adjoint an offset. Returns how many numbers
    that is in all.
    """
    places = Places()
    for row, node in zip(table, nodes, strict=True):
        fork = isinstance(node.op, Fork)
        row[at.Y] = table[node.source, at.Y] if fork else places.take(values(row, N))
        if isinstance(node.op, NORMS):
            each = N * node.op.groups if isinstance(node.op, GroupNorm) else node.op.C
            row[at.S] = places.take(each)
    end_of_values = places.end
    place_adjoints(table, nodes, N, lean, places)
    place_inputs(table, nodes)
    return share_memory(table, end_of_values, places.end) if lean else places.end


def values(row, N):
    """How many numbers an operation puts out."""
    return N * row[at.O] * row[at.HO] * row[at.WO]


def place_adjoints(table, nodes, N, lean, places):
    """DY of every operation but Forks; DX2 of Forks and Sums."""
    reader_of = readers(nodes)
    for i in range(len(nodes) - 1, -1, -1):
        row, node = table[i], nodes[i]
        column = at.DX2 if isinstance(node.op, Fork) else at.DY
        if row[column] == ABSENT:  # no Sum gave it one
            reader = reader_of[i] and reader_of[i].op
            overwritten = lean and isinstance(reader, NORMS | Activate)
            row[column] = row[at.Y] if overwritten else places.take(values(row, N))
        if isinstance(node.op, Sum):
            place_terms(table, nodes, i, N, places)


def place_terms(table, nodes, i, N, places):
    """The adjoints of the two inputs of a Sum."""
    row, node = table[i], nodes[i]
    table[node.source, at.DY] = row[at.DX2] = row[at.DY]
    if not node.constant:
        if changes_its_adjoint(nodes, i):
            row[at.DX2] = places.take(values(row, N))
        column = at.DX2 if isinstance(nodes[node.second].op, Fork) else at.DY
        table[node.second, column] = row[at.DX2]


def place_inputs(table, nodes):
    """X and DX of every operation, X2 of Sums, and DY of Forks."""
    for row, node in zip(table, nodes, strict=True):
        if node.source != ABSENT:
            before = table[node.source]
            row[at.X] = before[at.Y]
            row[at.DX] = before[at.DX2 if node.of_shortcut else at.DY]
        if isinstance(node.op, Fork):
            row[at.DY] = row[at.DX]
        if node.second != ABSENT:
            row[at.X2] = table[node.second, at.Y]


ADJOINTS = [at.DX, at.DY, at.DX2]


def share_memory(table, begin, end):
    """Moves the adjoints, which are at begin .. end, to shared places. Returns the new
    end.

    The backward passes go from the last row to the first. An adjoint is in use from the
    first row that has its place, in this order, to the last one. The largest are placed
    first, each at the lowest offset that is free while it is in use.
    """
    starts = np.unique(table[:, ADJOINTS])
    starts = starts[starts >= begin]
    sizes = np.diff([*starts, end])
    moved, placed = {}, []
    for i in np.argsort(-sizes, kind="stable"):
        rows = np.flatnonzero((table[:, ADJOINTS] == starts[i]).any(axis=1))
        offset = begin
        for lo, hi, first, last in sorted(placed):
            beside = last < rows[0] or rows[-1] < first
            if not beside and lo < offset + sizes[i] and offset < hi:
                offset = hi
        placed.append((offset, offset + sizes[i], rows[0], rows[-1]))
        moved[int(starts[i])] = offset
    for column in ADJOINTS:
        table[:, column] = [moved.get(place, place) for place in table[:, column].tolist()]
    return int(max([begin, *(hi for _, hi, _, _ in placed)]))
