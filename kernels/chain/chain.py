"""A chain ready to run: compiled for a precision, with memory to work in and threads to share the tasks among."""
from typing import NamedTuple

import numpy as np

from refmaml.kernels.chain import cpu
from refmaml.kernels.chain.operations import CROSS_ENTROPY
from refmaml.kernels.chain.program import Program, program, supported
from refmaml.kernels.compiled import compiled_on_one_thread
from refmaml.kernels.threads import share

LITTLE = 1 << 18         # multiply-adds below which waking another thread costs more than it brings


class Kept(NamedTuple):
    """What a Hessian-vector product needs of the gradient's passes: the program, its arguments, values and adjoints of every task."""
    program: Program
    N: int
    kind: int
    scale: object
    x: np.ndarray
    labels: np.ndarray
    w: np.ndarray
    work: np.ndarray
    places: np.ndarray
    filters: np.ndarray


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
        self.operations, self.loss, self.empty, self.threads = tuple(operations), loss, memory.empty, threads
        self.little = LITTLE

    def primal(self, w, x, y, scale, keep):
        """Outputs, losses and gradients of all tasks; w (T or 1, P), x (T, N, ...)."""
        T, N, dtype = len(x), x.shape[1], np.result_type(w, x)
        made, w, x = program(self.operations, N, not keep), dense(w, dtype), pixels_in_a_row(x, dtype)
        labels, targets = self.truth(y, dtype)
        D, real = self.operations[-1].O, dtype.type
        z, loss, finite, grad = np.empty((T, N, D), dtype), np.empty(T, dtype), np.empty(T, bool), self.empty((T, w.shape[1]), dtype)
        shared = len(w) == 1
        filters = self.shared_filters(made, w, dtype) if shared else None
        kept = (self.empty((T, made.work), dtype), self.empty((T, made.places), np.int16)) if keep else None

        def run(lo, hi):
            work, places = kept or (self.empty((1, made.work), dtype), self.empty((1, made.places), np.int16))
            compiled(cpu.primal_tasks, dtype)(
                lo, hi, made.table, made.reals.astype(dtype), made.lists, N, self.loss, real(scale), x, labels, targets, w, z, loss, finite,
                grad, work, places, filters if shared else self.empty((made.largest,), dtype), shared)
        share(T, run, made.macs * T < self.little, self.threads)
        return Outcome(z, loss, finite, grad, Kept(made, N, self.loss, real(scale), x, labels, w, *kept, filters) if keep else None)

    def product(self, kept, v, gauss_newton=False):
        """H v, or the Gauss-Newton matrix times v, for each task; v (T or 1, P)."""
        T, dtype, made = len(kept.x), kept.x.dtype, kept.program
        lean, v = program(self.operations, kept.N, True), dense(v, dtype)
        grad, shared = self.empty((T, v.shape[1]), dtype), kept.filters is not None

        def run(lo, hi):
            compiled(cpu.gauss_newton_tasks if gauss_newton else cpu.hessian_tasks, dtype)(
                lo, hi, made.table, lean.table, made.reals.astype(dtype), made.lists, kept.N, kept.kind, kept.scale, kept.x, kept.labels,
                kept.w, v, grad, kept.work, self.empty((lean.work,), dtype), kept.places,
                kept.filters if shared else self.empty((made.largest,), dtype), shared, self.empty((made.largest,), dtype))
        share(T, run, 2 * made.macs * T < self.little, self.threads)
        return grad

    def truth(self, y, dtype):
        """(labels, targets), one of them empty."""
        if self.loss == CROSS_ENTROPY:
            return dense(y, np.int64), np.empty((1, 1, 1), dtype)
        return np.empty((1, 1), np.int64), dense(y, dtype)

    def shared_filters(self, made, w, dtype):
        """Every product's filters in both orders."""
        filters = self.empty((made.filters,), dtype)
        compiled(cpu.order_filters, dtype)(made.table, made.lists, w[0], filters)
        return filters


def compiled(function, dtype):
    return compiled_on_one_thread(function, cpu.SIGNATURES[function], dtype)


def dense(a, dtype):
    return np.ascontiguousarray(a, dtype)


def pixels_in_a_row(x, dtype):
    """(T, N, C, H, W), or (T, N, C), as (T, N H W C)."""
    x = x.transpose(0, 1, 3, 4, 2) if x.ndim == 5 else x
    return dense(x, dtype).reshape(len(x), -1)


def chain(operations, loss, memory, threads=None):
    """A Chain, or None where one kernel cannot run it."""
    return Chain(operations, loss, memory, threads) if supported(operations) else None
