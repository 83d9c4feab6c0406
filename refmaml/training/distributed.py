"""The tasks of a meta-step, computed by one process or by several MPI ranks, to the
same bits.

A sum of floating-point numbers depends on its order. So no rank adds up its own
gradients first, as an allreduce would. Rank r has the r-th block of consecutive tasks.
The total travels from rank to rank, and each rank adds the gradients of its tasks one
by one:

    total = (((0 + g_0) + g_1) + ...) + g_{T-1}

in task order, whichever rank computed a task. Each rank sends P numbers to the next,
and the last one broadcasts P numbers; gathering all gradients would send T P numbers to
every rank (`benchmarks/ranks` measures both). The T P additions are sequential, as on
one rank; each of those numbers took 10^3 or more operations to compute.
"""

from contextlib import contextmanager, nullcontext

import numpy as np

from refmaml.errors import NonFiniteError, RefmamlError
from refmaml.execution.groups import RowsOfTasks
from refmaml.interrupts import signal_handler
from refmaml.methods.meta_gradient import check_meta, finalize, refuse_overflow


class SingleProcess:
    """One process, which computes all tasks. `Ranks` has the same methods.

    rank, size  the number of this process, and how many there are
    all_stop    whether all ranks know that all are about to stop
    """

    rank, size, all_stop = 0, 1, True

    def my_tasks(self, tasks):
        """The range of task numbers, of 0 .. tasks - 1, of this rank."""
        return range(tasks)

    def meta_gradient(self, method, net, meta, batch, chunk):
        """The MetaGradient of all tasks, with the same bits on every rank.

        batch  the tasks of this rank; None where it has none
        """
        return method.meta_gradient(net, meta, batch, chunk=chunk)

    def gather(self, make, tasks=0):
        """[make() of rank 0, of rank 1, ...], on every rank.

        tasks  how many tasks make() works through on this rank; with it the task that a
               NonFiniteError names is counted among the tasks of all ranks
        Where some ranks raise a RefmamlError or KeyboardInterrupt, all raise the first.
        """
        return [make()]

    def from_rank_0(self, make):
        """make() of rank 0, on every rank.

        A RefmamlError there is raised on all ranks.
        """
        return make()

    def shared_errors(self):
        """A block without communication. Where some ranks raise a RefmamlError in it,
        all ranks raise the first of these errors at its end.
        """
        return nullcontext()

    def local_rank_0_first(self):
        """A block that rank 0 of each machine leaves before its other ranks enter.

        For caches on disk, which are made once.
        """
        return nullcontext()

    def identical_work(self):
        """A block in which all ranks compute the same: an error of one is an error of
        all.
        """
        return nullcontext()

    def deferred_signals(self):
        """A block in which SIGNALS wait for `should_continue` or `raise_if_signalled`.

        A rank must not stop while another waits for it.
        """
        return nullcontext()

    def raise_if_signalled(self):
        """Raise KeyboardInterrupt after a signal to this rank. For use inside `gather`,
        which then raises it on all ranks.
        """

    def should_continue(self, wish):
        """`wish` of rank 0: whether to take another step.

        After a signal to any rank, all ranks raise KeyboardInterrupt with its `signum`.
        """
        return wish


SINGLE_PROCESS = SingleProcess()


class Ranks:
    """The ranks of an MPI communicator of mpi4py, with the methods of SingleProcess.

    comm   the communicator of all ranks
    local  that of the ranks on this machine (comm.Split_type(COMM_TYPE_SHARED));
           None: all ranks are
    All ranks have to call the methods in the same order.
    """

    def __init__(self, comm, local=None):
        self.comm, self.local, self.rank, self.size = comm, local or comm, comm.rank, comm.size
        self.all_stop, self.signum = False, 0

    def my_tasks(self, tasks):
        return range(tasks * self.rank // self.size, tasks * (self.rank + 1) // self.size)

    def meta_gradient(self, method, net, meta, batch, chunk):
        """See SingleProcess.

        A rank keeps the gradients of its own tasks until its turn.
        """
        gradients, kernels = [], net.kernels

        def my_gradients():
            if batch is None:
                return []
            checked_batch = check_meta(method, net, meta, batch, chunk)
            work = RowsOfTasks(method, method.task_gradients, chunk)
            rows, small = net.run(work, meta, *checked_batch.all_arrays)
            gradients.extend(map(kernels.to_host, rows))
            weights = kernels.to_host_batched(checked_batch.all_arrays[4:])  # one array or none
            return [small | dict(zip(["weights"], weights, strict=False))]

        by_rank = self.gather(my_gradients, 0 if batch is None else len(batch))
        parts = [part for parts in by_rank for part in parts]
        total = self.sum_in_task_order(np.zeros(meta.shape, meta.dtype), gradients)
        if not np.isfinite(total).all():  # though each gradient is finite
            with self.identical_work():
                refuse_overflow(net, total)
        small = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        grad = total / len(small["loss"])
        if not isinstance(meta, np.ndarray):
            (grad,) = kernels.to_device(grad)
        return finalize(method, grad, small, weights=small.pop("weights", None))

    def sum_in_task_order(self, total, gradients):
        """total (P,) plus all gradients (t, P) of rank 0, then of rank 1, ..."""
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
        made, error = call_or_error(make)
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

    def from_rank_0(self, make):
        made, error = self.comm.bcast(call_or_error(make) if self.rank == 0 else None)
        self.raise_first([error] * self.size)
        return made

    @contextmanager
    def shared_errors(self):
        error = None
        try:
            yield
        except RefmamlError as raised:
            error = raised
        self.raise_first(self.comm.allgather(error))

    def raise_first(self, errors):
        """Raise the first error of [that of rank 0 or None, ...].

        The rank's number is added unless all ranks have the same error, or it names a
        task.
        """
        failed = [rank for rank, error in enumerate(errors) if error is not None]
        if failed:
            self.all_stop, error = True, errors[failed[0]]
            all_ranks = len(failed) == self.size and len(set(map(str, errors))) == 1
            if all_ranks or isinstance(error, NonFiniteError | KeyboardInterrupt):
                raise error
            raise type(error)(f"{error} (rank {failed[0]} of {self.size})")

    @contextmanager
    def local_rank_0_first(self):
        if self.local.rank > 0:
            self.local.barrier()
        try:
            yield
        finally:
            if self.local.rank == 0:
                self.local.barrier()

    @contextmanager
    def identical_work(self):
        try:
            yield
        except RefmamlError:
            self.all_stop = True
            raise

    def deferred_signals(self):
        return signal_handler(self.note_signal)

    def note_signal(self, signum, frame=None):
        """The signal handler: keep the number for later."""
        self.signum = signum

    def raise_if_signalled(self):
        if self.signum:
            raise interrupt(self.signum)

    def should_continue(self, wish):
        wishes, signals = zip(*self.comm.allgather((wish, self.signum)), strict=True)
        if any(signals):
            self.all_stop = True
            raise interrupt(max(signals))
        return wishes[0]


def interrupt(signum):
    """The KeyboardInterrupt of a signal, which keeps its number."""
    stop = KeyboardInterrupt()
    stop.signum = signum
    return stop


def call_or_error(make):
    """(make(), None), or (None, the RefmamlError or KeyboardInterrupt raised)."""
    try:
        return make(), None
    except (RefmamlError, KeyboardInterrupt) as error:
        return None, error
