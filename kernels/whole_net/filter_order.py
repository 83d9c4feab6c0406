"""Parameters in the order of the products: the filters of a convolution, (O, C, taps) in a vector of parameters, as rows (tap, c) of O
numbers.

A vector of parameters, a gradient, a direction keep that order for as long as they are worked on: sums and products of theirs do not
care, a product takes its filters from where they are, and leaves their gradient there. Only the way back to x wants them turned, rows
(tap, o) of C numbers. A matrix is a convolution of one tap; everything else keeps its place.
"""

from refmaml.kernels.numba_runtime.gemm_microkernel import transpose, transpose_from_afar
from refmaml.kernels.numba_runtime.inline_jit import inlined, inner
from refmaml.kernels.whole_net import program as at


@inlined()
def lists_of(row, lists):
    """(rows (tap, c), rows o, turned rows o, rows c of a tap): see program.orders."""
    start, O, C = row[at.LISTS + at.ORDERS] + 1, row[at.O], row[at.C]
    taps = start + C * row[at.KH] * row[at.KW]
    return (
        lists[start:taps],
        lists[taps : taps + O],
        lists[taps + O : taps + 2 * O],
        lists[taps + 2 * O : taps + 2 * O + C],
    )


@inlined()
def extent(row):
    """Where a product's filters begin and end in a vector of parameters, and those of one tap."""
    size = row[at.O] * row[at.C]
    return row[at.WEIGHT], row[at.WEIGHT] + size * row[at.KH] * row[at.KW], size


@inlined()
def copy(to, source, start, count):
    """The numbers of one parameter that keeps its place; none where start is ABSENT."""
    if start >= 0:
        for i in range(start, start + count):
            to[i] = source[i]


@inner()
def to_products(table, lists, ordered, w):
    """Fills `ordered` from w."""
    for i in range(len(table)):
        row = table[i]
        if row[at.KIND] <= at.MATRIX:
            (first, end, _), (taps, outputs, _, _) = extent(row), lists_of(row, lists)
            transpose_from_afar((ordered[first:end], taps, w[first:end], outputs))
        else:
            copy(ordered, w, row[at.WEIGHT], row[at.C])
        copy(ordered, w, row[at.BIAS], row[at.O])


@inner()
def from_products(table, lists, w, ordered):
    """Fills w from `ordered`."""
    for i in range(len(table)):
        row = table[i]
        if row[at.KIND] <= at.MATRIX:
            (first, end, _), (taps, outputs, _, _) = extent(row), lists_of(row, lists)
            transpose((w[first:end], outputs, ordered[first:end], taps))
        else:
            copy(w, ordered, row[at.WEIGHT], row[at.C])
        copy(w, ordered, row[at.BIAS], row[at.O])


@inner()
def turn(table, lists, turned, ordered):
    """Fills `turned` with the filters of `ordered` as rows (tap, o) of C numbers, where there is a way back to x."""
    for i in range(len(table)):
        row = table[i]
        if row[at.KIND] <= at.MATRIX and row[at.X] >= 0:
            (first, end, size), (_, _, outputs, channels) = extent(row), lists_of(row, lists)
            for tap in range(first, end, size):
                transpose((turned[tap : tap + size], outputs, ordered[tap : tap + size], channels))
