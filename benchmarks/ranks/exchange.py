"""How may ranks add up the gradients of all tasks in task order? Three ways, timed, as JSON on stdout; run.py starts this.

    mpiexec -n R python -m mpi4py benchmarks/ranks/exchange.py TASKS NUMBERS REPEATS

    travelling  the total goes from rank to rank and each adds its tasks: what refmaml does (refmaml/training/distributed.py)
    slices      each rank adds up one part of the numbers of all tasks, which everybody sends it; then all parts go to all
    gathered    all gradients go to all, and each adds them up for itself
All leave the same bits, which is checked.
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
    rows = np.empty(
        (tasks, width), mine.dtype
    )  # of consecutive tasks, rank after rank: in task order
    ranks.comm.Alltoallv([sent, len(mine) * np.diff(ends)], [rows, counts * width])
    total = np.zeros(mine.shape[1], mine.dtype)
    ranks.comm.Allgatherv(added(rows), [total, np.diff(ends)])
    return total


def gathered(ranks, mine, tasks):
    rows = np.empty((tasks, mine.shape[1]), mine.dtype)
    ranks.comm.Allgatherv(mine, [rows, mine.shape[1] * np.diff(cuts(tasks, ranks.size))])
    return added(rows)


def added(rows):
    """One row after another."""
    total = np.zeros(rows.shape[1], rows.dtype)
    for row in rows:
        total += row
    return total


def cuts(count, parts):
    """Where the parts of range(count) end, as Ranks.mine deals them."""
    return [count * part // parts for part in range(parts + 1)]


def timed(ranks, way, mine, tasks, right, repeats):
    """Seconds of each call, from when all are there until all are done."""
    times = []
    for _ in range(repeats):
        ranks.comm.barrier()
        started = perf_counter()
        total = way(ranks, mine, tasks)
        ranks.comm.barrier()
        times.append(perf_counter() - started)
        if total.tobytes() != right.tobytes():
            raise AssertionError(
                f"{way.__name__}: expected the bits of the sum in task order, got others"
            )
    return times


def main(tasks, numbers, repeats):
    ranks = Ranks(MPI.COMM_WORLD)
    rows = np.random.default_rng(0).standard_normal((tasks, numbers), np.float32)
    mine, right = rows[ranks.my_tasks(tasks).start : ranks.my_tasks(tasks).stop], added(rows)
    times = {way.__name__: [] for way in (travelling, slices, gathered)}
    for _ in range(3):  # by turns
        for way in (travelling, slices, gathered):
            times[way.__name__] += timed(ranks, way, mine, tasks, right, repeats)
    if ranks.rank == 0:
        print(json.dumps(times))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
