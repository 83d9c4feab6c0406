"""The forms in which a user's batch may come, and the way back into the same form.

sets   (x_support, y_support, x_query, y_query): a tuple, a list, a dict or an object
       with these names, as a refmaml.Batch. Each set is an array, a tuple or a dict
       of arrays with the task axis first; or a list with an entry for each task
tasks  [(x_support, y_support, x_query, y_query), ...]: a list of tasks, each a tuple,
       a list, a dict or an object with these names
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from refmaml.arrays import described
from refmaml.doctor.frameworks import TaskBatch
from refmaml.doctor.own_loss.tasks import OwnBatch, TaskData
from refmaml.doctor.own_loss.trees import is_array, to_numpy, tree_of
from refmaml.errors import ArgumentError, expect
from refmaml.ragged import RaggedBatch

NAMES = ("x_support", "y_support", "x_query", "y_query")
WANTED = (
    "(x_support, y_support, x_query, y_query) with the task axis first, or a list of "
    "such tuples, one for each task"
)


class Form(NamedTuple):
    """framework  whose structures the values have: see trees.py
    by_task    whether the batch is a list of tasks
    outer      (four sets) -> the user's container of four; of one task where by_task
    stacked    for each of the four sets, whether it has a task axis; else it is a list
    """

    framework: str
    by_task: bool
    outer: Callable
    stacked: tuple


def read_batch(batch, framework):
    """The OwnBatch in a user's batch. Raises ArgumentError in one line."""
    expect(batch is not None, "batch", WANTED, "None")
    by_task = is_list_of_tasks(batch)
    if by_task:
        fours = [four_of(task, f"batch[{t}]") for t, task in enumerate(batch)]
        rows = [parts for parts, _ in fours]
        form = Form(framework, True, fours[0][1], (False,) * 4)
    else:
        sets, outer = four_of(batch, "batch")
        columns = [tasks_of(a, name, framework) for a, name in zip(sets, NAMES, strict=True)]
        T = len(columns[0])
        for name, column in zip(NAMES, columns, strict=True):
            wanted, got = f"{T} tasks as in x_support", f"{len(column)} tasks"
            expect(len(column) == T, f"batch.{name}", wanted, got)
        rows = list(zip(*columns, strict=True))
        form = Form(framework, False, outer, tuple(not isinstance(a, list) for a in sets))
    tasks = [
        [task_data(a, framework, t, name) for a, name in zip(row, NAMES, strict=True)]
        for t, row in enumerate(rows)
    ]
    return OwnBatch(tasks, form)


def task_data(value, framework, task, name):
    """One x or y of one task as a TaskData."""
    what = f"batch: {name} of task {task}"
    tree = tree_of(value, framework)
    value = tree.rebuild([to_numpy(leaf, what) for leaf in tree.leaves])
    return TaskData(value, framework, task, name.partition("_")[2])


def is_list_of_tasks(batch):
    """Whether a batch is a list of tasks, and not four sets.

    Four entries of four are tasks in a list of tuples, and sets in a tuple of lists.
    """
    if not isinstance(batch, list | tuple) or hasattr(batch, "x_support"):
        return False
    if not batch or not all(is_four(item) for item in batch):
        return False
    if len(batch) != 4:
        return True
    if isinstance(batch, list) and all(isinstance(item, tuple) for item in batch):
        return True
    named = all(not isinstance(item, list | tuple) for item in batch)
    expect(
        named or isinstance(batch, tuple),
        "batch",
        "a list of tuples (four tasks), or a tuple of lists (four sets)",
        "a list of four lists of four, which may be either",
    )
    return named


def is_four(item):
    """Whether an entry may be a task: four in a row, or something with the names."""
    if isinstance(item, list | tuple):
        return len(item) == 4 and not hasattr(item, "shape")
    return has_names(item)


def has_names(item):
    """Whether a dict or an object has the four names."""
    if isinstance(item, Mapping):
        return all(name in item for name in NAMES)
    return all(hasattr(item, name) for name in NAMES)


def four_of(batch, what):
    """(the four parts, a function of four parts that makes the same container)."""
    if isinstance(batch, Mapping) and has_names(batch):
        keys = [k for k in batch if k not in NAMES]
        expect(not keys, what, f"the keys {', '.join(NAMES)}", lambda: f"also {keys[0]!r}")
        return [batch[name] for name in NAMES], lambda parts: dict(zip(NAMES, parts, strict=True))
    if isinstance(batch, list | tuple) and len(batch) == 4:
        if hasattr(batch, "_fields"):
            return list(batch), lambda parts: type(batch)(*parts)
        return list(batch), type(batch)
    if has_names(batch):
        parts = [getattr(batch, name) for name in NAMES]
        parts = [list(part) for part in parts] if isinstance(batch, RaggedBatch) else parts
        return parts, lambda parts: TaskBatch(*parts)
    raise ArgumentError(f"{what}: expected {WANTED}, got {described(batch)}")


def tasks_of(value, name, framework):
    """[value of each task] of one set."""
    if isinstance(value, list):
        expect(len(value) > 0, f"batch.{name}", "at least one task", "an empty list")
        return value
    tree = tree_of(value, framework)
    lengths = [axis_length(leaf) for leaf in tree.leaves]
    fits = lengths and None not in lengths and len(set(lengths)) == 1 and lengths[0] > 0
    wanted = "arrays with the task axis first, or a list with an entry for each task"
    expect(fits, f"batch.{name}", wanted, lambda: described(value))
    return [tree.rebuild([leaf[t] for leaf in tree.leaves]) for t in range(lengths[0])]


def axis_length(leaf):
    """The length of an array's first axis, or None."""
    return leaf.shape[0] if is_array(leaf) and len(leaf.shape) > 0 else None


def user_batch(batch, convert):
    """(the batch in the user's form, {"batch.x_support": [its arrays], ...}).

    convert  a NumPy array -> the user's array, a copy; other leaves stay as they are
    """
    form, leaves = batch.form, {}

    def one(data, name):
        value = data.mapped(lambda a: convert(a) if isinstance(a, np.ndarray) else a).value
        leaves.setdefault(name, []).extend(tree_of(value, form.framework).leaves)
        return value

    if form.by_task:
        made = [
            form.outer([one(d, f"batch[{t}].{name}") for d, name in zip(task, NAMES, strict=True)])
            for t, task in enumerate(batch.tasks)
        ]
        return made, leaves
    sets = []
    for place, name in enumerate(NAMES):
        column = [task[place] for task in batch.tasks]
        if form.stacked[place]:
            sets.append(one(stacked(column, form.framework), f"batch.{name}"))
        else:
            sets.append([one(data, f"batch.{name}") for data in column])
    return form.outer(sets), leaves


def stacked(column, framework):
    """The TaskData with the task axis first, of one TaskData for each task."""
    trees = [tree_of(data.value, framework) for data in column]
    together = [np.stack(leaves) for leaves in zip(*(t.leaves for t in trees), strict=True)]
    return TaskData(trees[0].rebuild(together), framework, 0, column[0].role)
