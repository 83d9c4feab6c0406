"""A batch of tasks, each with a support set to adapt on and a query set."""

from collections.abc import ItemsView
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refmaml.arrays import described
from refmaml.errors import expect

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Batch:
    """T tasks side by side; every array has the task axis first.

    x_support (T, N, ...), y_support (T, N) or (T, N, D): data of the inner loss f_t.
    x_query   (T, M, ...), y_query   (T, M) or (T, M, D): data of the query loss g_t.
    Labels are integers for cross-entropy, real numbers for squared error.
    weights   (T,), or None for 1 each: w_t in M = (1/T) sum_t w_t M_t. Weights whose
              mean is 1 make M a weighted mean: T * w / w.sum() for w >= 0
    The arrays are NumPy's, or CuPy's for kernels on a GPU. Lists of T arrays, one for
    each task, make a RaggedBatch: its tasks have numbers of examples of their own.
    Images of the query set may have another height and width than those of the support
    set, where the net takes both.
    Raises ArgumentError for other arrays (tensors of a framework, masked arrays), where
    the task axes differ or there is no task, where the examples of the query set have
    other axes or channels than those of the support set, and for weights of another
    shape.
    """

    x_support: np.ndarray
    y_support: np.ndarray
    x_query: np.ndarray
    y_query: np.ndarray
    weights: np.ndarray | None = None
    of_lists: ClassVar[type["Batch"] | None] = None  # the class of a batch made of lists

    def __new__(cls, x_support: Any = None, *_: Any, **__: Any) -> "Batch":
        """A Batch, or a batch of another class where x_support is a list."""
        return object.__new__(cls.of_lists or cls if isinstance(x_support, list | tuple) else cls)

    def __post_init__(self) -> None:
        for name, a in self.named:
            check_kind(name, a)
        for name, a in self.named:
            check_tasks(name, a, len(self.x_support))
        for name in ("x", "y"):
            check_fit(name, *(getattr(self, f"{name}_{part}") for part in ("support", "query")))
        check_weights(self.weights, len(self))

    @classmethod
    def unchecked(cls, *arrays: Any) -> "Batch":
        """The batch of arrays (weights last, if any) that are from a checked one."""
        batch = object.__new__(cls)
        vars(batch).update(zip(cls.__dataclass_fields__, arrays, strict=False))
        return batch

    @property
    def named(self) -> ItemsView[str, np.ndarray]:
        """The four arrays by name."""
        return {name: a for name, a in vars(self).items() if name != "weights"}.items()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in self.all_arrays)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(x_support, y_support, x_query, y_query)."""
        return self.x_support, self.y_support, self.x_query, self.y_query

    @property
    def all_arrays(self) -> tuple[np.ndarray, ...]:
        """The four arrays, and the weights if there are any."""
        return self.arrays if self.weights is None else (*self.arrays, self.weights)

    @property
    def sets(self) -> tuple[Pair, Pair]:
        """((x_support, y_support), (x_query, y_query))."""
        return (self.x_support, self.y_support), (self.x_query, self.y_query)

    def __len__(self) -> int:
        """The number of tasks T."""
        return len(self.x_support)

    def __getitem__(self, tasks: slice) -> "Batch":
        """The batch of the tasks in a slice: `batch[8:16]`."""
        expect(isinstance(tasks, slice), "tasks", "a slice, as in batch[0:8]", repr(tasks))
        return type(self)(*(a[tasks] for a in self.all_arrays))

    def __eq__(self, other: object) -> bool:
        """Whether all arrays have the same type, shape and values (NaN equals none)."""
        if not isinstance(other, Batch):
            return NotImplemented
        mine, others = self.all_arrays, other.all_arrays
        return len(mine) == len(others) and all(map(same, mine, others))

    __hash__ = None  # type: ignore[assignment]  # arrays can change: a batch is no key

    def astype(self, dtype: Any) -> "Batch":
        """The same batch with real inputs, targets and weights in a float dtype."""
        dtype = np.dtype(dtype)
        expect(dtype.kind in "fc", "dtype", "a float or complex dtype", lambda: f"{dtype}")

        def kept(a: np.ndarray) -> bool:
            return a.dtype == dtype or not (a.dtype.kind == "f" or a is self.weights)

        cast = (a if kept(a) else a.astype(dtype) for a in self.all_arrays)
        return self if all(map(kept, self.all_arrays)) else Batch.unchecked(*cast)


def is_array(a: Any) -> bool:
    """Whether `a` is an array of NumPy, without a mask, or of CuPy."""
    known = isinstance(a, np.ndarray) or hasattr(a, "get")  # CuPy's arrays have `get`
    masked = isinstance(a, np.ma.MaskedArray)
    return known and not masked and isinstance(getattr(a, "dtype", None), np.dtype)


def check_kind(name: str, a: Any) -> None:
    """Raise ArgumentError unless `a` is an array (tasks, examples, ...) of numbers."""
    expect(
        is_array(a), name, "a NumPy array (tasks, examples, ...)" + remedy(a), lambda: described(a)
    )
    expect(a.dtype.kind in "fciu", name, "numbers", lambda: f"dtype {a.dtype}")
    expect(a.ndim >= 2, name, "an array (tasks, examples, ...)", lambda: f"shape {a.shape}")


def remedy(a: Any) -> str:
    """What makes a NumPy array of `a`, in brackets, for an error message."""
    if isinstance(a, np.ma.MaskedArray):
        return " without a mask"
    makes = ".detach().cpu().numpy()" if hasattr(a, "detach") else "np.asarray(...)"
    return f", as {makes} makes it"


def check_tasks(name: str, a: np.ndarray, tasks: int) -> None:
    """Raise ArgumentError unless `a` has the tasks of x_support, at least one."""
    expect(len(a) > 0, name, "at least one task", lambda: f"shape {a.shape}")
    expect(
        len(a) == tasks,
        name,
        lambda: f"{tasks} tasks as in x_support",
        lambda: f"{len(a)} tasks, shape {a.shape}",
    )


def check_fit(name: str, support: np.ndarray, query: np.ndarray) -> None:
    """Raise ArgumentError unless both sets have the same axes and channels."""
    expect(
        support.ndim == query.ndim and support.shape[2:3] == query.shape[2:3],
        f"{name}_query",
        lambda: f"examples of shape {support.shape[2:]} as in {name}_support",
        lambda: f"{query.shape[2:]}, shape {query.shape}",
    )


def check_weights(weights: Any, tasks: int) -> None:
    """Raise ArgumentError unless `weights` is None or (tasks,) real numbers."""
    w, wanted = weights, f"an array ({tasks},) of real numbers, or None"
    fits = w is None or (is_array(w) and w.shape == (tasks,) and w.dtype.kind in "fiu")
    expect(fits, "weights", wanted, lambda: described(w))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same type, shape and values."""
    if type(a) is not type(b) or a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool((a == b).all())
