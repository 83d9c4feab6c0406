"""Ranks as threads of one process, with what a communicator of mpi4py offers: for tests
without MPI.
"""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

from refmaml.training.distributed import Ranks

PATIENCE = 60  # seconds; a rank that waits longer waits for ever


class Room:
    """Where `size` ranks meet.

    One of them computes at a time, as not all that they compute with may be called from
    several threads.
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
        """wait(...), while others compute."""
        self.turn.release()
        try:
            return wait(**options)
        finally:
            self.turn.acquire()


class Comm:
    """One rank's view of the room."""

    def __init__(self, room, rank):
        self.room, self.rank, self.size = room, rank, room.size

    def barrier(self):
        self.room.wait(self.room.meet.wait)

    def allgather(self, value):
        self.room.slots[self.rank] = value
        self.barrier()
        values = list(self.room.slots)
        self.barrier()
        return values

    def bcast(self, value, root=0):
        return self.allgather(value)[root]

    def Send(self, array, dest):
        self.room.mail[self.rank, dest].put(array.copy())

    def Recv(self, array, source):
        array[...] = self.room.wait(self.room.mail[source, self.rank].get, timeout=PATIENCE)

    def Bcast(self, array, root):
        array[...] = self.allgather(array.copy() if self.rank == root else None)[root]


def on_ranks(size, run, kind=Ranks):
    """[run(ranks) of rank 0, ...]: what each returned, or the exception it raised."""
    room = Room(size)

    def attempt(rank):
        with room.turn:
            try:
                return run(kind(Comm(room, rank)))
            except (Exception, KeyboardInterrupt) as error:
                return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(attempt, range(size)))
