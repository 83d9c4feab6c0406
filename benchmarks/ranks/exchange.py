"""Three ways to sum the gradients of all tasks in task order over MPI ranks, timed.

Prints JSON; run.py starts it.

    mpiexec -n R python -m mpi4py benchmarks/ranks/exchange.py TASKS NUMBERS REPEATS

    travelling  the total goes from rank to rank and each adds its tasks, as in
                refmaml/training/distributed.py
    slices      each rank receives one slice of the gradients of all tasks and sums it;
                then all slices go to all ranks
    gathered    all gradients go to all ranks, and each rank sums them
The script checks that all three give the same bits.
"""

import json
import sys
from time import perf_counter

import numpy as np
from mpi4py import MPI

from refmaml.training.distributed import Ranks


def travelling(ranks, mine, tasks):
    return ranks.sum_in_task_order(np.zeros(mine.shape[1], mine.dtype), [mine])


def slices(ranks, mine, tasks):
    ends, counts = cuts(mine.shape[1], ranks.size), np.diff(cuts(tasks, ranks.size))
    sent = np.concatenate(
        [mine[:, low:high].ravel() for low, high in zip(ends, ends[1:], strict=False)]
    )
    width = ends[ranks.rank + 1] - ends[ranks.rank]
    rows = np.empty((tasks, width), mine.dtype)  # rank after rank, hence in task order
    ranks.comm.Alltoallv([sent, len(mine) * np.diff(ends)], [rows, counts * width])
    total = np.zeros(mine.shape[1], mine.dtype)
    ranks.comm.Allgatherv(added(rows), [total, np.diff(ends)])
    return total


def gathered(ranks, mine, tasks):
    rows = np.empty((tasks, mine.shape[1]), mine.dtype)
    ranks.comm.Allgatherv(mine, [rows, mine.shape[1] * np.diff(cuts(tasks, ranks.size))])
    return added(rows)


def added(rows):
    """The sum of the rows, one after the other."""
    total = np.zeros(rows.shape[1], rows.dtype)
    for row in rows:
        total += row
    return total


def cuts(count, parts):
    """The ends of the parts of range(count), as Ranks.my_tasks divides it."""
    return [count * part // parts for part in range(parts + 1)]


def timed(ranks, way, mine, tasks, expected, repeats):
    """Seconds of each call, between a barrier before it and one after it."""
    times = []
    for _ in range(repeats):
        ranks.comm.barrier()
        started = perf_counter()
        total = way(ranks, mine, tasks)
        ranks.comm.barrier()
        times.append(perf_counter() - started)
        if total.tobytes() != expected.tobytes():
            raise AssertionError(
                f"{way.__name__}: expected the bits of the sum in task order, got others"
            )
    return times


def main(tasks, numbers, repeats):
    ranks = Ranks(MPI.COMM_WORLD)
    rows = np.random.default_rng(0).standard_normal((tasks, numbers), np.float32)
    mine, expected = rows[ranks.my_tasks(tasks).start : ranks.my_tasks(tasks).stop], added(rows)
    times = {way.__name__: [] for way in (travelling, slices, gathered)}
    for _ in range(3):  # in turns
        for way in (travelling, slices, gathered):
            times[way.__name__] += timed(ranks, way, mine, tasks, expected, repeats)
    if ranks.rank == 0:
        print(json.dumps(times))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
