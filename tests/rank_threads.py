"""Ranks as threads of one process, for tests without MPI.

They have the methods of mpi4py's communicator.
"""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

from refmaml.training.distributed import Ranks

PATIENCE = 600  # seconds; only a deadlock takes as long


class SharedState:
    """The shared state of `size` ranks.

    One rank computes at a time: not everything they call is safe in several threads.
    """

    def __init__(self, size):
        self.turn = threading.Lock()
        self.size, self.slots, self.meet = (
            size,
            [None] * size,
            threading.Barrier(size, timeout=PATIENCE),
        )
        self.mail = {(a, b): queue.Queue() for a in range(size) for b in range(size)}

    def wait(self, wait, **options):
        """wait(...), while other ranks compute."""
        self.turn.release()
        try:
            return wait(**options)
        finally:
            self.turn.acquire()


class Comm:
    """The communicator of one rank."""

    def __init__(self, shared, rank):
        self.shared, self.rank, self.size = shared, rank, shared.size

    def barrier(self):
        self.shared.wait(self.shared.meet.wait)

    def allgather(self, value):
        self.shared.slots[self.rank] = value
        self.barrier()
        values = list(self.shared.slots)
        self.barrier()
        return values

    def bcast(self, value, root=0):
        return self.allgather(value)[root]

    def Send(self, array, dest):
        self.shared.mail[self.rank, dest].put(array.copy())

    def Recv(self, array, source):
        array[...] = self.shared.wait(self.shared.mail[source, self.rank].get, timeout=PATIENCE)

    def Bcast(self, array, root):
        array[...] = self.allgather(array.copy() if self.rank == root else None)[root]


def on_ranks(size, run, kind=Ranks):
    """[run(ranks) of rank 0, ...]: what each returned, or the exception it raised."""
    shared = SharedState(size)

    def attempt(rank):
        with shared.turn:
            try:
                return run(kind(Comm(shared, rank)))
            except (Exception, KeyboardInterrupt) as error:
                return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(attempt, range(size)))
