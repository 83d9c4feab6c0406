"""Timings by turns, and what they come to."""

from math import ceil
from time import perf_counter, sleep
from typing import NamedTuple

import numpy as np

LEAST = 3  # turns everybody gets, however slow
DROP = 3  # of more timings than this in a turn the first is dropped: it finds threads asleep and caches cold
SPAN = (
    2e-3  # seconds between two events on a GPU that make starting what is between them a small part
)
MOST = 1000  # runs between two events
PAUSE = 0.01  # seconds between turns, in which the threads of the last one go to sleep


class Spread(NamedTuple):
    """Seconds: the median of `count` timings, the quartiles around it, and the shortest."""

    median: float
    low: float
    high: float
    least: float
    count: int


def spread(times):
    """The Spread of some timings."""
    low, median, high = np.percentile(times, (25, 50, 75))
    return Spread(float(median), float(low), float(high), float(min(times)), len(times))


def runs_between_events(seconds):
    """How many runs of so many seconds go between two events: an idle GPU starts a graph some 10 us after the event in front of it."""
    return max(1, min(MOST, ceil(SPAN / max(seconds, SPAN / MOST))))


def turn(run, seconds):
    """Call again and again for so long, at least once: the seconds of each."""
    times, end = [], perf_counter() + seconds
    while not times or perf_counter() < end:
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return times[1:] if len(times) > DROP else times


def by_turns(takers, seconds, each, least=LEAST):
    """{name: timings} of {name: (seconds) -> timings}, one after the other, round after round; who returns None has left, and has none.

    Each may use `seconds` in all, and gets at least `least` turns of `each` seconds. So whoever computes fast has many timings, whoever is
    slow has few, and what else the machine does meanwhile falls on all alike.
    """
    times, used, turns = (
        {name: [] for name in takers},
        dict.fromkeys(takers, 0.0),
        dict.fromkeys(takers, 0),
    )
    waiting = list(takers)
    while waiting:
        for name in waiting:
            started = perf_counter()
            taken = takers[name](each)
            if taken is None:
                del times[name]
                continue
            times[name] += taken
            used[name] += perf_counter() - started
            turns[name] += 1
            sleep(PAUSE)
        waiting = [
            name
            for name in waiting
            if name in times
            and (turns[name] < least or used[name] * (1 + 1 / turns[name]) <= seconds)
        ]
    return times
