"""A net as one kernel: compiled for a precision, with memory, on several threads.

Nets of any size run in one kernel. The largest one measured, resnet12(32) with 75
queries of 28x28 (float32, 150 MB of values for a task), takes 1 / 1.13 of the time of
its layers one by one; conv4(norm="group") takes 1 / 1.17.
"""

from typing import NamedTuple

import numpy as np

from refmaml.kernels.numba_runtime.compiled import check_precision
from refmaml.kernels.numba_runtime.preparation import prepare
from refmaml.kernels.numba_runtime.threads import parallel_for
from refmaml.kernels.whole_net import cpu
from refmaml.kernels.whole_net.arguments import dense, divided, placeholders, rows_of_pixels
from refmaml.kernels.whole_net.inner_loop import num_vectors
from refmaml.kernels.whole_net.memory_plan import whole_lines
from refmaml.kernels.whole_net.needs import needed
from refmaml.kernels.whole_net.operations import CROSS_ENTROPY
from refmaml.kernels.whole_net.program import Program, program, supported
from refmaml.kernels.whole_net.rule_numbers import NO_RULE, PLAIN, num_rows
from refmaml.kernels.whole_net.task_mean import Shape, TaskMean

SERIAL_BELOW = 1 << 21  # multiply-adds; with fewer, one thread is faster
ONE_CALL_BELOW = 1 << 25  # with more, Python's share of the time is below 3 %


class TaskSet(NamedTuple):
    """Examples of all tasks as the compiled function takes them, and their program.

    x (T, N pixels channels); labels or targets, the other one being a placeholder.
    """

    program: Program
    N: int
    scale: object
    x: np.ndarray
    labels: np.ndarray
    targets: np.ndarray

    @property
    def arguments(self):
        program = self.program
        return program.table, program.lists, self.N, self.scale, self.x, self.labels, self.targets


class Kept(NamedTuple):
    """What a Hessian-vector product needs of the gradient's passes.

    set and w are those of the gradient; work (T, ...) holds the values and adjoints of
    every task, winners (T, ...) the winners of its max-pooling.
    """

    set: TaskSet
    w: np.ndarray
    work: np.ndarray
    winners: np.ndarray


class Outcome(NamedTuple):
    """Results for all tasks.

    z (T, N, D); loss (T,); finite (T,): whether all of a task's gradient is finite;
    grad (T, P); kept: a Kept, or None.
    """

    z: np.ndarray
    loss: np.ndarray
    finite: np.ndarray
    grad: np.ndarray
    kept: Kept | None


class WholeNet:
    """Operations in order (operations.py), then a loss.

    loss: CROSS_ENTROPY or MEAN_OF_SQUARES; its scale is an argument of each call.
    """

    def __init__(self, operations, loss, memory, threads=None):
        self.operations, self.loss = tuple(operations), loss
        self.empty, self.threads, self.serial_below = memory.empty, threads, SERIAL_BELOW
        self.programs, self.real_numbers, self.compiled_for = {}, {}, {}

    # ---- called by a net -------------------------------------------------------------

    def primal(self, w, x, y, scale, keep):
        """Outputs, losses and gradients of all tasks; w (T or 1, P), x (T, N, ...)."""
        T, dtype = len(x), np.result_type(w, x)
        w, examples = dense(w, dtype), self.task_set(x, y, scale, dtype, lean=not keep)
        out = self.outcome(T, examples, w.shape[1], dtype)
        kept = self.pass_memory(T, examples.program, dtype) if keep else None

        def run(lo, hi):
            self.call(dtype, lo, hi, cpu.PRIMAL, examples, w, out=out, kept=kept)

        self.compiled(dtype, cpu.PRIMAL)
        self.on_tasks(T, examples.program.macs, run)
        return Outcome(*out, Kept(examples, w, *kept) if keep else None)

    def product(self, kept, v, gauss_newton=False):
        """H v, or the Gauss-Newton matrix times v, for each task; v (T or 1, P)."""
        T, dtype = len(kept.set.x), kept.set.x.dtype
        v, what = dense(v, dtype), cpu.GAUSS_NEWTON if gauss_newton else cpu.HESSIAN
        grad = self.empty((T, v.shape[1]), dtype)
        out, memory = (*placeholders(dtype)[:3], grad), (kept.work, kept.winners)

        def run(lo, hi):
            self.call(dtype, lo, hi, what, kept.set, kept.w, v, out=out, kept=memory)

        self.compiled(dtype, what)
        self.on_tasks(T, 2 * kept.set.program.macs, run)
        return grad

    def unrolled(self, w, rates, support, query, order, slots, rule=NO_RULE):
        """Query outputs, losses and lam_0 of all tasks, of `order` 1 or 2
        (inner_loop.py).

        w (T or 1, P); rates: A_k (P,) of every step; support, query: (x, y, scale);
        slots: of how many steps a thread keeps the passes at a time;
        rule: the update rule.
        """
        dtype, steps = np.result_type(w, support[0]), len(rates)
        same = all(A is rates[0] for A in rates)
        w, rates = dense(w, dtype), dense(rates[0][None] if same else np.stack(rates), dtype)
        T = len(support[0])
        support = self.task_set(*support, dtype, lean=order == 1)
        query = self.task_set(*query, dtype, lean=True)
        out = self.outcome(T, query, w.shape[1], dtype)
        vectors = num_vectors(steps, slots, len(rates), order)

        def run(lo, hi):
            self.call(
                dtype, lo, hi, cpu.UNROLLED, support, w, rates, query, steps, order, out,
                slots=slots, vectors=vectors, rule=rule,
            )  # fmt: skip

        self.compiled(dtype, cpu.UNROLLED, order, rule.kind)
        self.on_tasks(T, 3 * steps * support.program.macs + query.program.macs, run)
        return Outcome(*out, None)

    def task_mean(self, rates, T, support, query, order, slots, rule=NO_RULE):
        """`unrolled` with the mean over tasks: a TaskMean for arrays of one kind.

        rates (K, P); support, query: (examples per task, scale) of each set. None where
        the arithmetic takes so long that nothing is saved.
        """
        steps, P = rates.shape
        macs = 3 * steps * self.program(support[0], order == 1).macs
        macs = T * (macs + self.program(query[0], True).macs)
        shape = Shape(T, P, rates.dtype, support, query, steps, order, slots)
        return TaskMean(self, shape, rates, rule, macs) if macs < ONE_CALL_BELOW else None

    # ---- how it runs -----------------------------------------------------------------

    # fmt: off
    def call(self, dtype, lo, hi, what, examples, w, v=None, query=None, steps=0, order=0, out=(),
             kept=None, slots=1, vectors=cpu.NUM_VECTORS, rule=NO_RULE):
        """The compiled function on tasks lo .. hi, with memory for the calling thread.

        slots: how many passes it keeps, unless `kept` has the memory of all tasks.
        vectors: how many parameter vectors it needs.
        """
        lean, query, slots = self.program(examples.N, True), query or examples, 0 if kept else slots
        made, after, P = examples.program, query.program, w.shape[1]
        rule_rows = num_rows(rule.kind, steps, order)
        work, rwork, qwork, vectors = divided(
            self.empty, dtype,
            (slots, made.work), (lean.work,), (after.work,), (vectors + rule_rows, whole_lines(P)),
        )
        vectors[:, P:] = 0  # the padding of a vector stays 0, whatever is added to it
        winners, qwinners = divided(self.empty, np.int16, (slots, made.winners), (after.winners,))
        self.compiled(dtype, what, order, rule.kind)(
            lo, hi, what, steps, order, rule.kind, rule.numbers.astype(dtype), rule_rows, self.loss,
            self.reals(lean, dtype), lean.table,
            *examples.arguments, *query.arguments, w, w if v is None else v, *out,
            *(kept or (work, winners)), rwork, qwork, qwinners, vectors,
        )
    # fmt: on

    def compiled(self, dtype, what, order=0, kind=PLAIN):
        """The compiled function. It is made on the calling thread, before others start.

        what, order and kind, of the update rule, say which functions it needs.
        """
        use = what, order, kind
        if (dtype, use) not in self.compiled_for:
            check_precision(dtype)
            prepare(needed(self.operations, self.loss, *use), dtype.name)
            self.compiled_for[dtype, use] = cpu.run.external.python[dtype.name]
        return self.compiled_for[dtype, use]

    def reals(self, made, dtype):
        """The real numbers of the net's programs in the precision of the arrays."""
        if dtype not in self.real_numbers:
            self.real_numbers[dtype] = made.reals.astype(dtype)
        return self.real_numbers[dtype]

    def on_tasks(self, T, macs, run):
        parallel_for(T, run, macs * T < self.serial_below, self.threads)

    def program(self, N, lean):
        """The program for N examples per task."""
        if (N, lean) not in self.programs:
            self.programs[N, lean] = program(self.operations, N, lean)
        return self.programs[N, lean]

    def task_set(self, x, y, scale, dtype, lean):
        """A TaskSet of x (T, N, ...) and labels or targets y."""
        N, empty = x.shape[1], placeholders(dtype)
        labels, targets = (
            (dense(y, np.int64), empty[0])
            if self.loss == CROSS_ENTROPY
            else (empty[4], dense(y, dtype))
        )
        return TaskSet(
            self.program(N, lean), N, dtype.type(scale), rows_of_pixels(x, dtype), labels, targets
        )

    def outcome(self, T, examples, P, dtype):
        """Memory for z, loss, finite and grad."""
        return (
            np.empty((T, examples.N, self.operations[-1].O), dtype),
            np.empty(T, dtype),
            np.empty(T, bool),
            self.empty((T, P), dtype),
        )

    def pass_memory(self, T, made, dtype):
        """Memory for the values and adjoints, and for the winners, of all tasks."""
        return self.empty((T, made.work), dtype), self.empty((T, made.winners), np.int16)


def whole_net(operations, loss, memory, threads=None):
    """A WholeNet, or None where one kernel cannot run it."""
    return WholeNet(operations, loss, memory, threads) if supported(operations) else None
