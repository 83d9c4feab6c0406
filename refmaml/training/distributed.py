"""Who computes the tasks of a meta-step: this process alone, or several ranks, which leave the same bits.

A sum of floating-point numbers depends on its order, so no rank adds up its own gradients first, as an allreduce would. Rank r has
the r-th run of consecutive tasks. The total travels from rank to rank, and each adds the gradients of its tasks to it, one by one:

    total = (((0 + g_0) + g_1) + ...) + g_{T-1}

in task order, whoever computed which. That is P numbers from each rank to the next, and P to all at the end, where gathering all
gradients would be T P numbers to everybody; `benchmarks/ranks` has both measured. The additions come one after another, as on one rank:
T P of them, beside the 10^3 and more operations that each of those numbers took.
"""

from contextlib import contextmanager, nullcontext

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import NonFiniteError, RefmamlError
from refmaml.interrupts import signal_handler
from refmaml.methods.meta_gradient import MeanOverTasks, check_meta, finalize, refuse_overflow


class RowsOfTasks(MeanOverTasks):
    """As MeanOverTasks, but returns the gradients of the tasks, a list of arrays (t, M)."""

    def __call__(self, net, meta, *arrays):
        gradients = []

        def keep(grad):
            ok = net.kernels.xp.isfinite(grad).all()
            net.require(ok, lambda: refuse_overflow(net, grad[0], grad))
            gradients.append(grad)

        _, figures = self.over_tasks(net, meta, Batch(*arrays), keep)
        return gradients, figures


class Alone:
    """One process, which computes every task."""

    rank, size, agreed = 0, 1, True

    def mine(self, tasks):
        """The numbers, of `tasks` tasks, of those that this rank computes: a range."""
        return range(tasks)

    def meta_gradient(self, method, net, meta, batch, chunk):
        """The MetaGradient of all tasks, of which this rank has `batch`; on every rank the same bits."""
        return method.meta_gradient(net, meta, batch, chunk=chunk)

    def gather(self, make, tasks=0):
        """[make() of rank 0, of rank 1, ...], on every rank. Where some raise a RefmamlError or KeyboardInterrupt, all raise the first.

        tasks  how many make() works through on this rank, so that the task which a NonFiniteError names is counted among all
        """
        return [make()]

    def from_first(self, make):
        """make() of rank 0, on every rank; the others do not call it. A RefmamlError is raised on all."""
        return make()

    def together(self):
        """A block, in which ranks do not exchange anything: where some raise a RefmamlError, all raise the first of them at its end."""
        return nullcontext()

    def first_before_others(self):
        """A block that the first rank of each machine leaves before the others enter it: for what is made once and kept on disk."""
        return nullcontext()

    def alike(self):
        """A block in which all ranks compute the same from the same numbers, so that what one raises all do."""
        return nullcontext()

    def interruptible(self):
        """A block in which Ctrl-C and its like wait for `go_on` or `stop_if_asked`, as a rank must not stop while another waits for it."""
        return nullcontext()

    def stop_if_asked(self):
        """KeyboardInterrupt on this rank after a Ctrl-C: for what `gather` makes, which then raises it on all."""

    def go_on(self, wish):
        """Whether to take another step: `wish`, as rank 0 has it. KeyboardInterrupt, with `signum`, on all ranks after a Ctrl-C on any."""
        return wish


ALONE = Alone()


class Ranks:
    """The ranks of an MPI communicator of mpi4py. The methods are those of Alone; all ranks have to call them in the same order.

    comm    who takes part
    local   those of them on this machine (comm.Split_type(COMM_TYPE_SHARED)); None: all
    agreed  whether all ranks know that all are about to stop
    """

    def __init__(self, comm, local=None):
        self.comm, self.local, self.rank, self.size = comm, local or comm, comm.rank, comm.size
        self.agreed, self.heard = False, 0

    def mine(self, tasks):
        return range(tasks * self.rank // self.size, tasks * (self.rank + 1) // self.size)

    def meta_gradient(self, method, net, meta, batch, chunk):
        """As Alone has it; `batch` is None on a rank without a task. The gradients of a rank's own tasks are kept until their turn."""
        gradients, kernels = [], net.kernels

        def of_my_tasks():
            if batch is None:
                return []
            checked_batch = check_meta(method, net, meta, batch, chunk)
            work = RowsOfTasks(method, method.task_gradients, chunk)
            rows, small = net.run(work, meta, *checked_batch.arrays)
            gradients.extend(map(kernels.to_host, rows))
            return [small]

        parts = [
            part
            for of_a_rank in self.gather(of_my_tasks, 0 if batch is None else len(batch))
            for part in of_a_rank
        ]
        total = self.sum_in_task_order(np.zeros(meta.shape, meta.dtype), gradients)
        if not np.isfinite(total).all():  # though each gradient is
            with self.alike():
                refuse_overflow(net, total)
        small = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        grad = total / len(small["loss"])
        if not isinstance(meta, np.ndarray):
            (grad,) = kernels.to_device(grad)
        return finalize(method, grad, small)

    def sum_in_task_order(self, total, gradients):
        """total (P,) with all rows added to it of `gradients`, NumPy's (t, P), of rank 0, then of rank 1, ..."""
        if self.rank > 0:
            self.comm.Recv(total, source=self.rank - 1)
        for rows in gradients:
            for row in rows:
                total += row
        if self.rank < self.size - 1:
            self.comm.Send(total, dest=self.rank + 1)
        self.comm.Bcast(total, root=self.size - 1)
        return total

    def gather(self, make, tasks=0):
        made, error = attempt(make)
        results, errors, counts = zip(*self.comm.allgather((made, error, tasks)), strict=True)
        self.raise_first(
            [
                error.counted_from(sum(counts[:rank]))
                if isinstance(error, NonFiniteError)
                else error
                for rank, error in enumerate(errors)
            ]
        )
        return list(results)

    def from_first(self, make):
        made, error = self.comm.bcast(attempt(make) if self.rank == 0 else None)
        self.raise_first([error] * self.size)
        return made

    @contextmanager
    def together(self):
        error = None
        try:
            yield
        except RefmamlError as raised:
            error = raised
        self.raise_first(self.comm.allgather(error))

    def raise_first(self, errors):
        """Raise the first error of [that of rank 0 or None, ...], with the rank's number unless all have the same, or it names a task."""
        failed = [rank for rank, error in enumerate(errors) if error is not None]
        if failed:
            self.agreed, error = True, errors[failed[0]]
            everybody = len(failed) == self.size and len(set(map(str, errors))) == 1
            if everybody or isinstance(error, NonFiniteError | KeyboardInterrupt):
                raise error
            raise type(error)(f"{error} (rank {failed[0]} of {self.size})")

    @contextmanager
    def first_before_others(self):
        if self.local.rank > 0:
            self.local.barrier()
        try:
            yield
        finally:
            if self.local.rank == 0:
                self.local.barrier()

    def interruptible(self):
        return signal_handler(self.note_signal)

    def note_signal(self, signum, frame=None):
        """What a signal does."""
        self.heard = signum

    @contextmanager
    def alike(self):
        try:
            yield
        except RefmamlError:
            self.agreed = True
            raise

    def stop_if_asked(self):
        if self.heard:
            raise interrupt(self.heard)

    def go_on(self, wish):
        wishes, signals = zip(*self.comm.allgather((wish, self.heard)), strict=True)
        if any(signals):
            self.agreed = True
            raise interrupt(max(signals))
        return wishes[0]


def interrupt(signum):
    """The KeyboardInterrupt of a signal."""
    stop = KeyboardInterrupt()
    stop.signum = signum
    return stop


def attempt(make):
    """(make(), None), or (None, the RefmamlError or KeyboardInterrupt it raised)."""
    try:
        return make(), None
    except (RefmamlError, KeyboardInterrupt) as error:
        return None, error
