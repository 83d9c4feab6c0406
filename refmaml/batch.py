"""A batch of tasks: the support set each task adapts on, and the query set it is judged on."""

from dataclasses import dataclass

import numpy as np

from refmaml.errors import expect


@dataclass(frozen=True)
class Batch:
    """T tasks side by side; every array has the task axis first.

    x_support (T, N, ...) and y_support (T, N) or (T, N, D): what the inner loss f_t is measured on.
    x_query   (T, M, ...) and y_query   (T, M) or (T, M, D): what the query loss g_t is measured on.
    Labels are integers for cross-entropy, real numbers for squared error.
    Raises ArgumentError where the task axes differ or there is no task.
    """

    x_support: np.ndarray
    y_support: np.ndarray
    x_query: np.ndarray
    y_query: np.ndarray

    def __post_init__(self):
        for name, a in self.named:
            expect(
                hasattr(a, "shape") and len(a.shape) >= 2,
                name,
                "an array (tasks, examples, ...)",
                lambda a=a: f"{type(a).__name__} of shape {getattr(a, 'shape', None)}",
            )
            expect(len(a) > 0, name, "at least one task", lambda a=a: f"shape {a.shape}")
            expect(
                len(a) == len(self.x_support),
                name,
                lambda: f"{len(self.x_support)} tasks as in x_support",
                lambda a=a: f"{len(a)} tasks, shape {a.shape}",
            )

    @property
    def named(self):
        """The arrays by name."""
        return vars(self).items()

    @property
    def nbytes(self):
        """Bytes of all arrays."""
        return sum(a.nbytes for _, a in self.named)

    @property
    def arrays(self):
        """(x_support, y_support, x_query, y_query)."""
        return self.x_support, self.y_support, self.x_query, self.y_query

    @property
    def sets(self):
        """((x_support, y_support), (x_query, y_query))."""
        return (self.x_support, self.y_support), (self.x_query, self.y_query)

    def __len__(self):
        """The number of tasks T."""
        return len(self.x_support)

    def __getitem__(self, tasks):
        """The batch of the tasks in a slice: `batch[8:16]`."""
        expect(isinstance(tasks, slice), "tasks", "a slice, as in batch[0:8]", repr(tasks))
        return Batch(*(a[tasks] for _, a in self.named))

    def astype(self, dtype):
        """The same batch with its inputs, and its targets where they are real numbers, in `dtype`."""

        def cast(a):
            return a.astype(dtype, copy=False) if a.dtype.kind == "f" else a

        arrays = [cast(a) for _, a in self.named]
        return (
            self
            if all(a is b for a, (_, b) in zip(arrays, self.named, strict=True))
            else Batch(*arrays)
        )
