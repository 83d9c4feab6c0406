"""A chain ready to run: compiled for a precision, with memory to work in and threads to share the tasks among."""

from functools import cache
from math import prod
from typing import NamedTuple

import numpy as np

from refmaml.kernels.numba_runtime.compiled import compiled_on_one_thread
from refmaml.kernels.numba_runtime.threads import share
from refmaml.kernels.whole_net import cpu
from refmaml.kernels.whole_net.inner_loop import room
from refmaml.kernels.whole_net.operations import CROSS_ENTROPY
from refmaml.kernels.whole_net.program import Program, program, supported, whole_lines

LITTLE = 1 << 21  # multiply-adds below which waking another thread costs more than it brings


class Set(NamedTuple):
    """Examples of all tasks as the compiled function takes them: x (T, ...) with the pixels of a task in a row, labels or targets, and
    the program for so many examples."""

    program: Program
    N: int
    scale: object
    x: np.ndarray
    labels: np.ndarray
    targets: np.ndarray

    @property
    def arguments(self):
        return (
            self.program.table,
            self.program.lists,
            self.N,
            self.scale,
            self.x,
            self.labels,
            self.targets,
        )


class Kept(NamedTuple):
    """What a Hessian-vector product needs of the gradient's passes: their set, parameters, and the values and adjoints of every task."""

    set: Set
    w: np.ndarray
    work: np.ndarray
    places: np.ndarray


class Outcome(NamedTuple):
    """z (T, N, D), loss (T,), finite (T,): whether all of a task's gradient is; grad (T, P); kept: a Kept, or None."""

    z: np.ndarray
    loss: np.ndarray
    finite: np.ndarray
    grad: np.ndarray
    kept: Kept | None


class Chain:
    """operations in order, then a loss (CROSS_ENTROPY or MEAN_OF_SQUARES, of which a scale is given with each call)."""

    def __init__(self, operations, loss, memory, threads=None):
        self.operations, self.loss, self.empty, self.threads = (
            tuple(operations),
            loss,
            memory.empty,
            threads,
        )
        self.little, self.programs, self.real = LITTLE, {}, {}

    # ---- what a net asks for -------------------------------------------------------------------------------------------

    def primal(self, w, x, y, scale, keep):
        """Outputs, losses and gradients of all tasks; w (T or 1, P), x (T, N, ...)."""
        T, dtype = len(x), np.result_type(w, x)
        w, examples = dense(w, dtype), self.examples(x, y, scale, dtype, lean=not keep)
        out = self.outcome(T, examples, w.shape[1], dtype)
        kept = self.room_to_work(T, examples.program, dtype) if keep else None

        def run(lo, hi):
            self.call(dtype, lo, hi, cpu.PRIMAL, examples, w, out=out, kept=kept, vectors=cpu.ROWS)

        self.share(T, examples.program.macs, run)
        return Outcome(*out, Kept(examples, w, *kept) if keep else None)

    def product(self, kept, v, gauss_newton=False):
        """H v, or the Gauss-Newton matrix times v, for each task; v (T or 1, P)."""
        T, dtype = len(kept.set.x), kept.set.x.dtype
        v, what = dense(v, dtype), cpu.GAUSS_NEWTON if gauss_newton else cpu.HESSIAN
        grad = self.empty((T, v.shape[1]), dtype)

        def run(lo, hi):
            self.call(
                dtype,
                lo,
                hi,
                what,
                kept.set,
                kept.w,
                v,
                out=(*nothing(dtype)[:3], grad),
                kept=(kept.work, kept.places),
                vectors=cpu.ROWS,
            )

        self.share(T, 2 * kept.set.program.macs, run)
        return grad

    def unrolled(self, w, rates, support, query, order, slots):
        """Query outputs, losses and lam_0 of all tasks, of `order` 1 or 2: see unrolled.py. w (T or 1, P); rates: A_k (P,) of every step;
        support, query: (x, y, scale); slots: the passes of how many steps a thread holds at a time."""
        dtype, steps = np.result_type(w, support[0]), len(rates)
        same = all(A is rates[0] for A in rates)
        w, rates = dense(w, dtype), dense(np.stack(rates[:1] if same else rates), dtype)
        (support, query), T = (
            (
                self.examples(*part, dtype, lean)
                for part, lean in ((support, order == 1), (query, True))
            ),
            len(support[0]),
        )
        out = self.outcome(T, query, w.shape[1], dtype)

        def run(lo, hi):
            self.call(
                dtype,
                lo,
                hi,
                cpu.UNROLLED,
                support,
                w,
                rates,
                query,
                steps,
                order,
                out,
                slots=slots,
                vectors=room(steps, slots, len(rates), order),
            )

        self.share(T, 3 * steps * support.program.macs + query.program.macs, run)
        return Outcome(*out, None)

    # ---- how -----------------------------------------------------------------------------------------------------------

    def call(
        self,
        dtype,
        lo,
        hi,
        what,
        examples,
        w,
        v=None,
        query=None,
        steps=0,
        order=0,
        out=(),
        kept=None,
        slots=1,
        vectors=0,
    ):
        """The compiled function on tasks lo .. hi, with a thread's own room: for the values and adjoints of `slots` passes unless they go
        to `kept`, of their tangents and of the query set, and for so many vectors of parameters."""
        lean, query, slots = self.program(examples.N, True), query or examples, 0 if kept else slots
        made, after, P = examples.program, query.program, w.shape[1]
        work, rwork, qwork, vectors = parted(
            self.empty,
            dtype,
            (slots, made.work),
            (lean.work,),
            (after.work,),
            (vectors, whole_lines(P)),
        )
        vectors[:, P:] = 0  # what is behind a vector stays 0, whatever it is added to
        places, qplaces = parted(self.empty, np.int16, (slots, made.places), (after.places,))
        compiled_on_one_thread(cpu.run, cpu.SIGNATURE, dtype)(
            lo,
            hi,
            what,
            steps,
            order,
            self.loss,
            self.reals(lean, dtype),
            lean.table,
            *examples.arguments,
            *query.arguments,
            w,
            w if v is None else v,
            *out,
            *(kept or (work, places)),
            rwork,
            qwork,
            qplaces,
            vectors,
        )

    def reals(self, made, dtype):
        """A program's real numbers in the precision of all others."""
        if dtype not in self.real:
            self.real[dtype] = made.reals.astype(dtype)
        return self.real[dtype]

    def share(self, T, macs, run):
        share(T, run, macs * T < self.little, self.threads)

    def program(self, N, lean):
        """The program for N examples a task."""
        if (N, lean) not in self.programs:
            self.programs[N, lean] = program(self.operations, N, lean)
        return self.programs[N, lean]

    def examples(self, x, y, scale, dtype, lean):
        """A Set."""
        N = x.shape[1]
        empty = nothing(dtype)
        labels, targets = (
            (dense(y, np.int64), empty[0])
            if self.loss == CROSS_ENTROPY
            else (empty[4], dense(y, dtype))
        )
        return Set(
            self.program(N, lean), N, dtype.type(scale), pixels_in_a_row(x, dtype), labels, targets
        )

    def outcome(self, T, examples, P, dtype):
        """Room for z, loss, finite and grad."""
        return (
            np.empty((T, examples.N, self.operations[-1].O), dtype),
            np.empty(T, dtype),
            np.empty(T, bool),
            self.empty((T, P), dtype),
        )

    def room_to_work(self, rows, made, dtype):
        """Room for values and adjoints, and for winners."""
        return self.empty((rows, made.work), dtype), self.empty((rows, made.places), np.int16)


@cache
def nothing(dtype):
    """In place of outputs or targets, losses, flags, gradients, labels."""
    return (
        np.empty((1, 1, 1), dtype),
        np.empty(1, dtype),
        np.empty(1, bool),
        np.empty((1, 1), dtype),
        np.empty((1, 1), np.int64),
    )


def parted(empty, dtype, *shapes):
    """Arrays of these shapes, in one piece of memory."""
    ends = np.cumsum([whole_lines(prod(shape)) for shape in shapes])
    whole = empty((int(ends[-1]),), dtype)
    return [
        whole[end - whole_lines(prod(shape)) :][: prod(shape)].reshape(shape)
        for end, shape in zip(ends, shapes, strict=True)
    ]


def dense(a, dtype):
    """`a` in the order of its axes; a copy of a read-only one, such as JAX's arrays are, as Numba would take it for another type."""
    return np.require(a, dtype, "CW")


def pixels_in_a_row(x, dtype):
    """(T, N, C, H, W), or (T, N, C), as (T, N H W C)."""
    x = x.transpose(0, 1, 3, 4, 2) if x.ndim == 5 else x
    return dense(x, dtype).reshape(len(x), -1)


def chain(operations, loss, memory, threads=None):
    """A Chain, or None where one kernel cannot run it."""
    return Chain(operations, loss, memory, threads) if supported(operations) else None
