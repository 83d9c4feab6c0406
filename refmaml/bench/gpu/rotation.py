"""Timing one kernel so that neither the L2 cache nor whoever launches is what is timed.

A run is one launch on each of several sets of arrays, together twice the L2, so that what a launch reads was not left there by the
one before; the launches are replayed as a graph. A time is a run's divided by its launches, and there are at least REPEATS of them.
"""

from typing import NamedTuple

from refmaml.bench.timing import Spread, spread

REPEATS, MOST_SETS = 30, 256


class Rotation(NamedTuple):
    """seconds of one launch; sets of arrays, the bytes of all of them, and whether launches were replayed as a graph."""

    seconds: Spread
    sets: int
    rotated: int
    graph: bool


def sets_beyond(l2, size):
    """How many sets of `size` bytes are twice the cache: two at least, and no more than MOST_SETS, which is too few for very small ones."""
    return max(2, min(MOST_SETS, -(-2 * l2 // max(size, 1))))


def is_array(a):
    return hasattr(a, "nbytes") and hasattr(a, "shape") and a.shape != ()


def rotated(gpu, kernel, arguments):
    """The Rotation of kernel(*arguments), the arguments on the GPU; they are left as some calls leave them."""
    size = sum(a.nbytes for a in arguments if is_array(a))
    sets = [
        arguments,
        *(
            [a.copy() if is_array(a) else a for a in arguments]
            for _ in range(sets_beyond(gpu.l2, size) - 1)
        ),
    ]

    def run():
        for each in sets:
            kernel(*each)

    times, graph = gpu.timings(run, REPEATS)
    return Rotation(spread([t / len(sets) for t in times]), len(sets), size * len(sets), graph)
