"""Timings by turns, and their medians and quartiles."""

from math import ceil
from time import perf_counter, sleep
from typing import NamedTuple

import numpy as np

MIN_TURNS = 3  # turns that every timer gets, however slow it is
# The first timing of a turn finds threads asleep and caches cold. A turn with more
# timings than this drops its first.
KEEP_FIRST_UP_TO = 3
# Seconds between two events on a GPU. Shorter spans would measure the start of the
# work.
MIN_SPAN = 2e-3
MAX_RUNS = 1000  # runs between two events
PAUSE = 0.01  # seconds between turns, so that the threads of the last turn go to sleep


class Spread(NamedTuple):
    """Seconds: median of `count` timings, lower and upper quartile, the shortest."""

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
    """The number of runs, each of that many seconds, to time between two events.

    An idle GPU starts a graph some 10 us after the event before it.
    """
    return max(1, min(MAX_RUNS, ceil(MIN_SPAN / max(seconds, MIN_SPAN / MAX_RUNS))))


def turn(run, seconds):
    """Seconds of each call of run(), repeated for that long, at least once."""
    times, end = [], perf_counter() + seconds
    while not times or perf_counter() < end:
        started = perf_counter()
        run()
        times.append(perf_counter() - started)
    return times[1:] if len(times) > KEEP_FIRST_UP_TO else times


def by_turns(timers, seconds, turn_seconds, min_turns=MIN_TURNS):
    """{name: timings} of timers {name: (seconds) -> timings} that run in turns.

    seconds  what each timer may use in all; it gets at least `min_turns` turns of
             `turn_seconds` each
    A timer that returns None has failed: it is removed from the result.

    A fast timer so has many timings and a slow one has few, and other work on the
    machine slows down all alike.
    """
    times = {name: [] for name in timers}
    used, turns = dict.fromkeys(timers, 0.0), dict.fromkeys(timers, 0)
    active = list(timers)
    while active:
        for name in active:
            started = perf_counter()
            new_times = timers[name](turn_seconds)
            if new_times is None:
                del times[name]
                continue
            times[name] += new_times
            used[name] += perf_counter() - started
            turns[name] += 1
            sleep(PAUSE)
        active = [
            name
            for name in active
            if name in times
            and (turns[name] < min_turns or used[name] * (1 + 1 / turns[name]) <= seconds)
        ]
    return times
