"""The inner loop of a small net on all tasks, and the mean over tasks, in one call.

For a net with some thousand multiply-adds, the time that Python takes to find programs,
to convert numbers and to allocate memory exceeds that of the arithmetic. All of this
depends on shapes alone. A TaskMean does it once for arrays of one kind.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from refmaml.kernels.numba_runtime.threads import max_threads, parallel_for
from refmaml.kernels.whole_net import cpu
from refmaml.kernels.whole_net.arguments import dense, divided, placeholders, rows_of_pixels
from refmaml.kernels.whole_net.inner_loop import num_vectors
from refmaml.kernels.whole_net.memory_plan import whole_lines
from refmaml.kernels.whole_net.operations import CROSS_ENTROPY
from refmaml.kernels.whole_net.rule_numbers import PLAIN, num_rows


class Shape(NamedTuple):
    """What a TaskMean is made for.

    tasks, params       T and P
    dtype               the precision
    support, query      (examples per task, scale of the loss) of each set
    steps, order        K; 1 for lam_K, 2 for lam_0
    slots               of how many steps the passes are kept at a time
    """

    tasks: int
    params: int
    dtype: np.dtype
    support: tuple
    query: tuple
    steps: int
    order: int
    slots: int


class TaskMean:
    """The mean over tasks of lam_0: `WholeNet.unrolled` at fixed shapes.

    net    the WholeNet
    shape  a Shape
    rates  (K, P), the step sizes A_k
    rule   the update rule
    macs   multiply-adds of all tasks, by which a WholeNet chooses the number of threads

    Its memory is used again by the next call. Calls at the same time, from several
    threads of Python, have memory of their own.
    """

    def __init__(self, net, shape, rates, rule, macs):
        dtype, steps, order, slots = shape.dtype, shape.steps, shape.order, shape.slots
        (N, scale), (M, query_scale) = shape.support, shape.query
        support, lean = net.program(N, order == 1), net.program(N, True)
        query, rows = net.program(M, True), num_rows(rule.kind, steps, order)
        self.rates = rates[:1] if (rates == rates[0]).all() else rates
        self.shape, self.outputs = shape, (shape.tasks, M, net.operations[-1].O)
        self.floats = (
            *((slots, support.work), (lean.work,), (query.work,)),
            (num_vectors(steps, slots, len(self.rates), order) + rows, whole_lines(shape.params)),
        )
        self.winners = (slots, support.winners), (query.winners,)
        self.net, self.serial, self.idle = net, macs < net.serial_below, []
        self.padding = rule.kind != PLAIN  # a rule may divide the zeros there by each other
        self.labelled, self.unused = net.loss == CROSS_ENTROPY, placeholders(dtype)
        self.run = net.compiled(dtype, cpu.UNROLLED, order, rule.kind)
        self.fixed = (
            *(cpu.UNROLLED, steps, order, rule.kind, rule.numbers.astype(dtype)),
            *(rows, net.loss, net.reals(lean, dtype), lean.table),
        )
        self.support = support.table, support.lists, N, dtype.type(scale)
        self.query = query.table, query.lists, M, dtype.type(query_scale)

    def __call__(self, w, x_support, y_support, x_query, y_query):
        """(mean of lam_0 (P,), loss (T,), z (T, N, D)) at w (P,), which tasks share.

        None if phi_0, a gradient, a lam_0 or their sum is not finite. The loss is not
        checked.
        """
        T, P, dtype = self.shape[:3]
        z, loss, finite = np.empty(self.outputs, dtype), np.empty(T, dtype), np.empty(T, bool)
        serial = self.serial or min(T, self.net.threads or max_threads()) == 1
        grad = np.empty((1, P), dtype) if serial else self.net.empty((T, P), dtype)
        arguments = (
            *self.fixed, *self.support, *self.examples(x_support, y_support),
            *self.query, *self.examples(x_query, y_query), dense(w, dtype)[None], self.rates,
            z, loss, finite, grad,
        )  # fmt: skip
        if serial:
            self.compute(0, T, arguments)
        else:
            run = partial(self.compute, arguments=arguments)
            parallel_for(T, run, threads=self.net.threads)
        if not all(finite.tolist()):
            return None
        mean = grad[0] if serial else mean_of_rows(grad)
        return None if mean is None else (mean, loss, z)

    def compute(self, lo, hi, arguments):
        """The compiled function on tasks lo .. hi, with memory of this call's own."""
        try:
            memory = self.idle.pop()
        except IndexError:
            memory = self.memory()
        if self.padding:
            memory[-1][:, self.shape.params :] = 0
        self.run(lo, hi, *arguments, *memory)
        self.idle.append(memory)

    def examples(self, x, y):
        """(x, labels, targets) as the compiled function takes them."""
        dtype, (targets, *_, labels) = self.shape.dtype, self.unused
        if self.labelled:
            return rows_of_pixels(x, dtype), dense(y, np.int64), targets
        return rows_of_pixels(x, dtype), labels, dense(y, dtype)

    def memory(self):
        """(work, winners, rwork, qwork, qwinners, vectors) for one call."""
        work, rwork, qwork, vectors = divided(self.net.empty, self.shape.dtype, *self.floats)
        winners, qwinners = divided(self.net.empty, np.int16, *self.winners)
        vectors[:, self.shape.params :] = 0  # 0 plus or times 0 stays 0
        return work, winners, rwork, qwork, qwinners, vectors


def mean_of_rows(rows):
    """The mean of rows, added to 0 one after another; None if it is not finite."""
    total = np.zeros(rows.shape[1], rows.dtype)
    with np.errstate(all="ignore"):
        for row in rows:
            np.add(total, row, total)
    return total / len(rows) if np.isfinite(total).all() else None
