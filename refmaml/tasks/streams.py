"""Where task distributions get their randomness: one independent stream for each (seed, step, task).

A sequential generator would make task 7 depend on how much tasks 0..6 had drawn, so that a batch cut into
chunks, or dealt to several ranks, would hold other tasks than the whole. Philox (Salmon, Moraes, Dror, Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011) has no such history: block c of its output is a keyed
bijection of the 256-bit counter c. We write the task and the step into the counter's two high words and leave
the two low words, 2^128 blocks, to the stream itself, so no two streams of a seed ever share a block;
different seeds are different keys. Nothing is hashed and nothing is spawned: the address of a task is its
whole state.
"""

import operator

import numpy as np

from refmaml.errors import expect

# The second word of the key keeps what is drawn once, on building a distribution, apart from what tasks draw.
TASKS, BUILD = 0, 1
# What a checkpoint says of its random numbers. It is to be changed with the numbers.
STREAMS = "task i of meta-step s: NumPy's Philox4x64-10, key (seed, 0), counter (0, 0, i, s); a checkpoint at `step` goes on with s = step"


def task_rng(seed, step, task):
    """The `numpy.random.Generator` of task number `task` of meta-step `step`, each an integer in [0, 2^64).

    Raises ArgumentError where one of the three is not such an integer.
    """
    return _philox(_word("seed", seed), TASKS, _word("task", task), _word("step", step))


def task_rngs(seed, step, tasks):
    """The generators `task_rng(seed, step, t)` for t in the range `tasks`, one after the other.

    One generator is moved from stream to stream, which is ten times quicker than building one for each: use
    what is yielded before asking for the next.
    """
    rng = task_rng(seed, step, 0)
    start = rng.bit_generator.state  # a copy: nothing drawn, nothing buffered
    # NumPy takes lists twice as fast as arrays.
    start |= {
        "state": {name: words.tolist() for name, words in start["state"].items()},
        "buffer": start["buffer"].tolist(),
    }
    for task in tasks:
        start["state"]["counter"][2] = task
        rng.bit_generator.state = start
        yield rng


def build_rng(seed, item=0):
    """The generator of item number `item` among what a distribution draws once, such as its class split.

    `seed` and `item` are integers in [0, 2^64). Never overlaps a `task_rng`. Raises ArgumentError.
    """
    return _philox(_word("seed", seed), BUILD, _word("item", item), 0)


def task_range(tasks):
    """The task numbers that `tasks` asks for: the first n for an integer n, or those of a range.

    `sample(range(8, 16))` is `sample(16)[8:16]` without the first eight: how ranks share one meta-batch.
    Raises ArgumentError for no task, a negative number, or something else.
    """
    wanted = "an integer >= 1, or a non-empty range of numbers >= 0"
    if not isinstance(tasks, range):
        expect(
            hasattr(tasks, "__index__") and not isinstance(tasks, bool),
            "tasks",
            wanted,
            repr(tasks),
        )
        tasks = range(operator.index(tasks))
    expect(len(tasks) > 0 and min(tasks[0], tasks[-1]) >= 0, "tasks", wanted, repr(tasks))
    return tasks


def _philox(seed, purpose, item, step):
    # NumPy keeps the counter's lowest word first; a generator counts up from the block it is given.
    return np.random.Generator(
        np.random.Philox(
            key=np.array([seed, purpose], dtype=np.uint64),
            counter=np.array([0, 0, item, step], dtype=np.uint64),
        )
    )


def _word(name, value):
    expect(
        hasattr(value, "__index__") and 0 <= operator.index(value) < 2**64,
        name,
        "an integer in [0, 2^64)",
        repr(value),
    )
    return operator.index(value)
