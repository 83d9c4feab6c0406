"""A batch of tasks with different numbers of examples: lists of arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from refmaml.arrays import described
from refmaml.batch import Batch, check_weights, is_array, remedy, same
from refmaml.errors import ArgumentError, expect


@dataclass(frozen=True, eq=False)
class RaggedBatch(Batch):
    """T tasks, each with its own numbers of examples: Batch(...) of lists makes one.

    x_support [(N_t, ...), ...], y_support [(N_t,) or (N_t, D), ...], and x_query,
    y_query with M_t examples: a list of T arrays each, without a task axis. Images may
    differ in size between tasks, where the net takes them. weights (T,): see Batch.
    Methods compute tasks of equal shapes together, each such group as an ordinary
    Batch, and add the gradients in task order. So every number has the bits of the task
    alone. Arrays padded to one size with a mask would not: the sums of a batch-norm and
    of a loss would have other lengths, hence another order and other roundings, and
    every kernel would need the mask. A loss's scale counts the task's own examples.
    All tasks' gradients (T, M) are in memory at once.
    Raises ArgumentError, naming the task, as Batch does, and for lists of different
    lengths.

    >>> import numpy as np, refmaml as rm
    >>> net, theta = rm.Sequential([rm.Linear(1, 1)], rm.MSE()), np.zeros(2)
    >>> y = [np.full((2, 1), 1.0), np.full((5, 1), 3.0)]  # 2 and 5 examples
    >>> x = [np.ones((2, 1)), np.ones((5, 1))]
    >>> rm.ERM().meta_gradient(net, theta, rm.Batch(x, y, x, y)).task_losses
    array([1., 9.])
    """

    def __post_init__(self) -> None:
        for name, arrays in self.named:
            check_list(name, arrays, self.x_support)
        for name, arrays in self.named:
            object.__setattr__(self, name, tuple(arrays))
        for t, task in enumerate(zip(*self.arrays, strict=True)):
            try:
                Batch(*(a[None] for a in task))
            except ArgumentError as error:
                raise in_task(error, t) from None
        check_weights(self.weights, len(self))

    @property
    def each(self) -> list[np.ndarray]:
        """Every array of every task, and the weights if there are any."""
        weights = [] if self.weights is None else [self.weights]
        return [a for arrays in self.arrays for a in arrays] + weights

    @property
    def groups(self) -> list[tuple[list[int], Batch]]:
        """[(task numbers, their Batch), ...]: the tasks of equal shapes together."""
        places = by_shape(*self.arrays)
        return [(p, Batch.unchecked(*stacked(self.all_arrays, p))) for p in places]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.each)

    def __eq__(self, other: object) -> bool:
        """Whether all arrays have the same type, shape and values (NaN equals none)."""
        if not isinstance(other, RaggedBatch):
            return NotImplemented
        mine, others = self.each, other.each
        return len(mine) == len(others) and all(map(same, mine, others))

    __hash__ = None  # type: ignore[assignment]  # arrays can change: a batch is no key

    def astype(self, dtype: Any) -> Batch:
        """The same batch with real inputs, targets and weights in a float dtype."""
        tasks = zip(*self.arrays, strict=True)
        cast = [Batch.unchecked(*task).astype(dtype).arrays for task in tasks]
        weights = () if self.weights is None else (self.weights.astype(dtype, copy=False),)
        return RaggedBatch.unchecked(*zip(*cast, strict=True), *weights)


Batch.of_lists = RaggedBatch


def is_list(a: Any) -> bool:
    """Whether `a` is a list or tuple, of the arrays of tasks."""
    return isinstance(a, list | tuple)


def check_list(name: str, arrays: Any, first: Any) -> None:
    """Raise ArgumentError unless `arrays` is a list of arrays (examples, ...).

    first  another such list, which must have the same length
    """
    wanted = "a list of arrays (examples, ...), one for each task"
    expect(is_list(arrays), name, wanted, lambda: described(arrays))
    expect(len(arrays) > 0, name, "at least one task", "an empty list")
    for t, a in enumerate(arrays):
        kind = "NumPy arrays (examples, ...)" + remedy(a)
        expect(is_array(a) and a.ndim > 0, name, kind, f"{described(a)} in task {t}")
    got = f"{len(arrays)} of them for {len(first)} tasks"
    expect(len(arrays) == len(first), name, wanted, got)


def by_shape(*lists: Sequence[np.ndarray]) -> list[list[int]]:
    """The numbers of the tasks whose arrays have equal shapes and types, together.

    lists  each has an array for every task. Groups come in the order of their first
    task.
    """
    groups: dict[Any, list[int]] = {}
    for t, task in enumerate(zip(*lists, strict=True)):
        groups.setdefault(tuple((a.shape, a.dtype) for a in task), []).append(t)
    return list(groups.values())


def stacked(arrays: Iterable[Any], places: list[int], kernels: Any = None) -> list[np.ndarray]:
    """The tasks `places` of lists of arrays, as arrays with a task axis.

    An array with a task axis gives its rows `places`.
    kernels  the kernel set of arrays that are not NumPy's
    """

    def rows(a: Any) -> np.ndarray:
        if is_list(a):
            return joined(kernels, [a[t][None] for t in places])
        return taken(kernels, a, places)

    return [rows(a) for a in arrays]


def joined(kernels: Any, arrays: list[np.ndarray]) -> np.ndarray:
    """The concatenation of arrays, NumPy's or the kernels'."""
    on_host = isinstance(arrays[0], np.ndarray)
    return np.concatenate(arrays) if on_host else kernels.concatenate(arrays)


def taken(kernels: Any, a: np.ndarray, places: Any) -> np.ndarray:
    """The rows `places` of an array, NumPy's or the kernels'."""
    places = np.asarray(places)
    return a[places] if isinstance(a, np.ndarray) else a[kernels.arrays(places)[0]]


def in_task(error: ArgumentError, task: int) -> ArgumentError:
    """The same error, of one task."""
    return ArgumentError(f"{error} in task {task}")
