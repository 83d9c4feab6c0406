"""Timing of one kernel without the help of the L2 cache and without launch gaps.

A run is one launch on each of several sets of arrays, together twice the L2 cache. So
what a launch reads is not in the cache from the launch before. The launches are
replayed as a graph. A time is that of a run divided by its launches; there are at least
REPEATS times.
"""

from typing import NamedTuple

from refmaml.bench.timing import Spread, spread

REPEATS, MAX_SETS = 30, 256


class Rotation(NamedTuple):
    """A timing over rotating sets of arrays.

    seconds  of one launch
    sets     the number of sets; rotated: bytes of all sets
    graph    whether the launches were replayed as a graph
    """

    seconds: Spread
    sets: int
    rotated: int
    graph: bool


def sets_exceeding_cache(l2, size):
    """The number of sets of `size` bytes that fill the L2 cache twice.

    At least two, at most MAX_SETS: very small sets then do not fill it.
    """
    return max(2, min(MAX_SETS, -(-2 * l2 // max(size, 1))))


def is_array(a):
    return hasattr(a, "nbytes") and hasattr(a, "shape") and a.shape != ()


def rotation(times, sets, size, graph):
    """The Rotation of runs over `sets` sets of `size` bytes each."""
    return Rotation(spread([t / sets for t in times]), sets, size * sets, graph)


def time_rotating(gpu, kernel, arguments):
    """The Rotation of kernel(*arguments), arguments on the GPU, which it overwrites."""
    size = sum(a.nbytes for a in arguments if is_array(a))
    count = sets_exceeding_cache(gpu.l2, size)
    copies = ([a.copy() if is_array(a) else a for a in arguments] for _ in range(count - 1))
    sets = [arguments, *copies]

    def run():
        for each in sets:
            kernel(*each)

    times, graph = gpu.timings(run, REPEATS)
    return rotation(times, count, size, graph)
