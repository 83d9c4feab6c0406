"""Parameter vectors in product order: the order in which the products read filters.

A parameter vector holds the filters of a convolution as (O, C, taps). In product order
they are rows (tap, c) of O numbers. Parameters, gradients and directions stay in
product order while a task is computed: sums of them do not depend on the order, a
product reads its filters where they are, and writes their gradient there. Only
backward_x needs them transposed, as rows (tap, o) of C numbers. A matrix is a
convolution with one tap. With groups, each group has filters of its own, one group
after another; O and C are then those of a group. A gamma or beta that differs between
positions is ordered as images are (group_norm.py). All other parameters keep their
positions.
"""

from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.numba_runtime.inline_jit import inlined
from refmaml.kernels.numba_runtime.transpose import transpose, transpose_uncached
from refmaml.kernels.numba_runtime.unowned_views import part
from refmaml.kernels.whole_net import columns as at
from refmaml.kernels.whole_net import group_norm
from refmaml.kernels.whole_net.products import per_group


@inlined()
def orders_of(row, lists):
    """(rows (tap, c), rows o, transposed rows o, rows c of a tap);
    program.py has them.
    """
    start = row[at.LISTS + at.FILTER_ORDERS] + 1
    O, C = per_group(row[at.O], row), per_group(row[at.C], row)
    taps = start + C * row[at.KH] * row[at.KW]
    return (
        part(lists, start, taps),
        part(lists, taps, taps + O),
        part(lists, taps + O, taps + 2 * O),
        part(lists, taps + 2 * O, taps + 2 * O + C),
    )


@inlined()
def extent(row):
    """(begin, end) of a product's filters in a parameter vector; the size of one tap of
    one group.
    """
    size = per_group(row[at.O], row) * per_group(row[at.C], row)
    return row[at.WEIGHT], row[at.WEIGHT] + row[at.GROUPS] * size * row[at.KH] * row[at.KW], size


@inlined()
def is_reordered(row):
    """Whether an operation has filters that orders differ in: more than one row and
    column."""
    vector = row[at.KIND] == at.MATRIX and (row[at.O] == 1 or row[at.C] == 1)
    return row[at.KIND] <= at.MATRIX and not vector


@inlined()
def weights_of(row):
    """How many numbers begin at WEIGHT, where their order is the same everywhere."""
    return row[at.C] * (row[at.O] if row[at.KIND] == at.MATRIX else 1)


@inlined()
def copy(to, source, start, count):
    """Copies a parameter that keeps its position; nothing if start is ABSENT."""
    if start >= 0:
        for i in range(start, start + count):
            to[i] = source[i]


@external("int64[:,::1], int64[::1], F[::1], F[::1]", allocates=False)
def to_product_order(table, lists, ordered, w):
    """Fills `ordered` from w."""
    for i in range(len(table)):
        row = table[i]
        if is_reordered(row):
            (begin, end, _), (taps, outputs, _, _) = extent(row), orders_of(row, lists)
            size = per_group(end - begin, row)
            for lo in range(begin, end, size):
                transpose_uncached(
                    (part(ordered, lo, lo + size), taps, part(w, lo, lo + size), outputs)
                )
            copy(ordered, w, row[at.BIAS], row[at.O])
        elif row[at.KIND] == at.GROUP_NORM and row[at.KH] > 1:
            group_norm.to_rows(row, lists, ordered, w)
        else:
            copy(ordered, w, row[at.WEIGHT], weights_of(row))
            copy(ordered, w, row[at.BIAS], row[at.O])


@external("int64[:,::1], int64[::1], F[::1], F[::1]", allocates=False)
def from_product_order(table, lists, w, ordered):
    """Fills w from `ordered`."""
    for i in range(len(table)):
        row = table[i]
        if is_reordered(row):
            (begin, end, _), (taps, outputs, _, _) = extent(row), orders_of(row, lists)
            size = per_group(end - begin, row)
            for lo in range(begin, end, size):
                transpose((part(w, lo, lo + size), outputs, part(ordered, lo, lo + size), taps))
            copy(w, ordered, row[at.BIAS], row[at.O])
        elif row[at.KIND] == at.GROUP_NORM and row[at.KH] > 1:
            group_norm.from_rows(row, lists, w, ordered)
        else:
            copy(w, ordered, row[at.WEIGHT], weights_of(row))
            copy(w, ordered, row[at.BIAS], row[at.O])


@external("int64[:,::1], int64[::1], F[::1], F[::1]", allocates=False)
def transpose_filters(table, lists, transposed, ordered):
    """Fills `transposed` with the filters of `ordered` as rows (tap, o) of C numbers.

    Filters that read the input of the net are left out: backward_x does not need them.
    """
    for i in range(len(table)):
        row = table[i]
        if is_reordered(row) and row[at.CONSTANT] == 0:
            (begin, end, size), (_, _, outputs, channels) = extent(row), orders_of(row, lists)
            for tap in range(begin, end, size):
                to, source = part(transposed, tap, tap + size), part(ordered, tap, tap + size)
                transpose((to, outputs, source, channels))
        elif row[at.KIND] == at.MATRIX and row[at.CONSTANT] == 0:
            copy(transposed, ordered, row[at.WEIGHT], weights_of(row))
