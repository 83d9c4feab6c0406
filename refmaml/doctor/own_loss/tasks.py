"""The examples of tasks: whatever the user's loss takes as x and y, task by task.

The recursions of refmaml.methods hand x and y on to the model, count tasks, take some
of them, take some examples of each, and join support and query set. A TaskSet does that
with values of any structure: arrays, tuples, dicts."""

from itertools import count

import numpy as np

from refmaml.doctor.own_loss.trees import map_leaves, tree_of
from refmaml.errors import ArgumentError, expect


class TaskData:
    """One x or y of one task.

    value      its arrays as NumPy arrays, anything else as it is
    framework  whose structures the value has: see trees.py
    task, role its place in the batch: the task's number, "support" or "query"
    """

    def __init__(self, value, framework, task, role):
        self.value, self.framework, self.task, self.role = value, framework, task, role
        self.cache = {}

    def cached(self, key, make):
        """make(), computed once."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    @property
    def leaves(self):
        """The NumPy arrays in the value."""
        leaves = tree_of(self.value, self.framework).leaves
        return [leaf for leaf in leaves if isinstance(leaf, np.ndarray)]

    @property
    def examples(self):
        """The length of the first axis that all arrays share, or None."""
        lengths = {len(leaf) if leaf.ndim else None for leaf in self.leaves}
        return lengths.pop() if len(lengths) == 1 else None

    @property
    def sum_length(self):
        """How many numbers the largest array holds."""
        return max((leaf.size for leaf in self.leaves), default=1)

    def converted(self, key, convert):
        """The value with convert(leaf) in place of every leaf, computed once a key."""
        return self.cached(key, lambda: self.mapped(convert).value)

    def mapped(self, function):
        """The TaskData with function(leaf) in place of every leaf."""
        value = map_leaves(function, self.value, self.framework)
        return TaskData(value, self.framework, self.task, self.role)

    def numbered(self, task):
        """The same data as those of another task."""
        return self if task == self.task else TaskData(self.value, self.framework, task, self.role)

    def in_role(self, role):
        """The same data in the place of another set."""
        return TaskData(self.value, self.framework, self.task, role)

    def taken(self, places):
        """The examples at some places."""
        expect(self.examples is not None, "batch", "arrays with one row for each example", "others")

        def make():
            return self.mapped(lambda a: a[places] if isinstance(a, np.ndarray) else a)

        return self.cached(("places", np.asarray(places).tobytes()), make)

    def joined(self, other):
        """The examples of this set, then those of another."""
        return self.cached(("joined", id(other)), lambda: self.join(other))

    def join(self, other):
        """`joined` without its cache. Raises ArgumentError where they do not fit."""
        mine, others = (tree_of(d.value, d.framework) for d in (self, other))
        fits = self.examples is not None and other.examples is not None
        expect(fits and mine.names == others.names, "batch", "sets that can be joined", "others")
        pairs = zip(mine.leaves, others.leaves, strict=True)
        try:
            leaves = [np.concatenate(p) if isinstance(p[0], np.ndarray) else p[0] for p in pairs]
        except ValueError as error:
            raise ArgumentError(f"batch: expected sets that can be joined, got {error}") from None
        return TaskData(mine.rebuild(leaves), self.framework, self.task, "both")


class TaskSet:
    """The x, or the y, of T tasks: a list of TaskData.

    It counts the passes that the model makes on it (`next_pass`), because a loss that
    draws random numbers draws other ones in each.
    """

    def __init__(self, tasks, passes=None):
        self.tasks = list(tasks)
        self.passes = count() if passes is None else passes

    def __len__(self):
        return len(self.tasks)

    def next_pass(self):
        """0, 1, ...: the number of the pass that begins."""
        return next(self.passes)

    @property
    def shape(self):
        """(T, examples of a task); None in place of a number that is not the same."""
        numbers = {task.examples for task in self.tasks}
        return len(self), numbers.pop() if len(numbers) == 1 else None

    def __getitem__(self, index):
        """Some tasks, or [:, places] some examples of each."""
        if isinstance(index, tuple):
            _, places = index
            if isinstance(places, slice) and places == slice(None):
                return self
            return TaskSet([task.taken(places) for task in self.tasks], self.passes)
        if isinstance(index, slice):
            return TaskSet(self.tasks[index])
        return TaskSet([self.tasks[t] for t in np.arange(len(self))[index]])

    def __array_function__(self, function, types, args, kwargs):
        """np.concatenate([support, query], axis=1) joins both sets of every task."""
        if function is not np.concatenate or kwargs.get("axis") != 1:
            return NotImplemented
        first, second = args[0]
        pairs = zip(first.tasks, second.tasks, strict=True)
        return TaskSet([a.joined(b) for a, b in pairs])


class OwnBatch:
    """The tasks of a user's batch, with the attributes of a refmaml.Batch.

    tasks  [(x_support, y_support, x_query, y_query), ...], four TaskData each
    form   the Form in which the user has them: see batch_forms.py
    """

    weights = None

    def __init__(self, tasks, form):
        self.tasks, self.form = [tuple(task) for task in tasks], form

    def __len__(self):
        return len(self.tasks)

    def __getitem__(self, tasks):
        return OwnBatch(self.tasks[tasks], self.form)

    def column(self, place):
        """A new TaskSet of one of the four, which has counted no pass yet."""
        return TaskSet([task[place] for task in self.tasks])

    x_support = property(lambda self: self.column(0))
    y_support = property(lambda self: self.column(1))
    x_query = property(lambda self: self.column(2))
    y_query = property(lambda self: self.column(3))

    def mapped(self, function):
        """The batch with function(leaf) in place of every leaf."""
        return OwnBatch([[d.mapped(function) for d in task] for task in self.tasks], self.form)

    def with_tasks(self, tasks):
        """The batch of other tasks in the same form, numbered from 0."""
        numbered = [[data.numbered(t) for data in task] for t, task in enumerate(tasks)]
        return OwnBatch(numbered, self.form)
