"""Random numbers of task distributions: an independent stream per (seed, step, task).

With one sequential generator, task 7 would depend on how much tasks 0..6 had drawn, and
a batch cut into chunks, or distributed over ranks, would have other tasks than the
whole. Philox (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2,
3", SC 2011) has no such history: block c of its output is a keyed bijection of the
256-bit counter c. The two high words of the counter are the task and the step. The two
low words, 2^128 blocks, count within the stream. So no two streams of a seed share a
block; different seeds are different keys. Nothing is hashed and nothing is spawned: a
task's address is its whole state.
"""

import operator

import numpy as np

from refmaml.errors import expect

# The second word of the key separates numbers that are drawn once, when a distribution
# is built, from those of its tasks.
TASKS, BUILD = 0, 1
# The description of the random numbers in a checkpoint. It must change with them.
STREAMS = (
    "task i of meta-step s: NumPy's Philox4x64-10, key (seed, 0), counter (0, 0, i, s); "
    "a checkpoint at `step` goes on with s = step"
)


def task_rng(seed, step, task):
    """The `numpy.random.Generator` of task number `task` of meta-step `step`.

    seed, step and task are integers in [0, 2^64); else ArgumentError.
    """
    return _philox(_word("seed", seed), TASKS, _word("task", task), _word("step", step))


def task_rngs(seed, step, tasks):
    """The generators `task_rng(seed, step, t)` for t in the range `tasks`, in order.

    One generator is moved from stream to stream, which is ten times faster than a new
    one for each. Use a generator before the next one is read.
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
    """The generator of item number `item` of what a distribution draws only once.

    Such as its class split. `seed` and `item` are integers in [0, 2^64). Its numbers
    never overlap with those of a `task_rng`. Raises ArgumentError.
    """
    return _philox(_word("seed", seed), BUILD, _word("item", item), 0)


def task_range(tasks):
    """The range of task numbers for `tasks`: an integer n means the first n.

    `sample(range(8, 16))` is `sample(16)[8:16]` without the first eight: so ranks share
    one meta-batch. Raises ArgumentError for no task, a negative number or another type.
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
    # NumPy stores the counter's lowest word first. A generator counts up from its
    # block.
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
