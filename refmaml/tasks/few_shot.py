"""Few-shot classification: tasks of a few classes, drawn from a table of pictures."""

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.tasks.checks import expect_choice, expect_count, expect_real_dtype
from refmaml.tasks.streams import task_range, task_rngs

ROTATIONS = ("none", "per_task", "as_classes")
SUPPORT_ORDERS = ("by_class", "shuffled")


class FewShot:
    """Draws N-way K-shot tasks from `images` (classes, examples, H, W), uint8, H = W.

    names      one per class, for people to read
    rotations  "none": as they are;
               "per_task": each class of a task is turned by 0, 90, 180 or 270 degrees,
               drawn for every task, all its pictures alike (MAML's code, training and
               test);
               "as_classes": a class turned by 90 degrees is another class, so that
               there are four times as many (Matching networks; Reptile's code, training
               only). A symmetric character is then in several classes
    invert     inputs are 1 - value/255 rather than value/255
    Raises ArgumentError.
    """

    def __init__(self, images, names, *, rotations="per_task", invert=False):
        expect(
            isinstance(images, np.ndarray)
            and images.dtype == np.uint8
            and images.ndim == 4
            and images.shape[2] == images.shape[3]
            and images.size > 0,
            "images",
            "uint8 (classes, examples, H, H)",
            getattr(images, "shape", type(images).__name__),
        )
        expect(len(names) == len(images), "names", f"{len(images)}, one per class", len(names))
        self.set_options(rotations, invert)
        self.images, self.names = images, tuple(names)
        self.counts = np.full(len(images), images.shape[1])

    def set_options(self, rotations, invert):
        """Check and set what does not depend on the pictures."""
        expect_choice("rotations", rotations, ROTATIONS)
        expect(isinstance(invert, (bool, np.bool_)), "invert", "True or False", repr(invert))
        self.rotations, self.invert = rotations, bool(invert)

    def __repr__(self):
        _, examples, height, width = self.images.shape
        return (
            f"{type(self).__name__}({len(self)} classes, {examples} examples of "
            f"{height} x {width}, rotations={self.rotations!r}, invert={self.invert})"
        )

    def __len__(self):
        """The number of classes a task chooses from."""
        return len(self.names) * (4 if self.rotations == "as_classes" else 1)

    def sample(
        self,
        tasks,
        n_way=5,
        k_shot=1,
        k_query=15,
        *,
        seed=0,
        step=0,
        dtype=np.float32,
        support_order="by_class",
    ):
        """A Batch: x (T, N, C, H, W) in [0, 1], y (T, N) int64 labels 0 .. n_way-1.

        C is 1, or 3 for pictures in colour.

        tasks       how many, or which ones as a range
        n_way       classes per task, all different; their labels are drawn as well
        k_shot      pictures per class in the support: N = n_way * k_shot
        k_query     pictures per class in the query, none of them in the support:
                    N = n_way * k_query
        seed, step  integers: the same two give the same task i, whatever `tasks` is
        support_order
                    "by_class": class after class; "shuffled": the same examples in an
                    order drawn for each task, for methods with mini-batches. Class
                    after class, the labels would have the same order in all tasks,
                    which a net could learn
        Raises ArgumentError, also if the table has too few classes or examples.
        """
        tasks = task_range(tasks)
        self._expect_enough(n_way, k_shot, k_query)
        expect_real_dtype(dtype)
        expect_choice("support_order", support_order, SUPPORT_ORDERS)
        places = n_way * k_shot if support_order == "shuffled" else 0
        drawn, order = self._draw(tasks, n_way, k_shot + k_query, places, seed, step)
        pictures = self._pictures(*drawn)
        x, y = self._inputs(pictures[:, :, :k_shot], dtype), _labels(len(tasks), n_way, k_shot)
        if support_order == "shuffled":
            x, y = _reordered(order, x, y)
        query = self._inputs(pictures[:, :, k_shot:], dtype)
        return Batch(x, y, query, _labels(len(tasks), n_way, k_query))

    def _expect_enough(self, n_way, k_shot, k_query):
        for name, value in (("n_way", n_way), ("k_shot", k_shot), ("k_query", k_query)):
            expect_count(name, value)
        expect(n_way <= len(self), "n_way", f"at most the {len(self)} classes there are", n_way)
        fewest, which = self.counts.min(), self.names[self.counts.argmin()]
        of = "a class" if fewest == self.counts.max() else f"the class {which}"
        expect(
            k_shot + k_query <= fewest,
            "k_shot + k_query",
            f"at most the {fewest} examples of {of}",
            k_shot + k_query,
        )

    def _examples(self, classes, examples):
        """The pictures of examples (T, n_way, examples) of classes (T, n_way)."""
        return self.images[classes[:, :, None], examples]

    def _draw(self, tasks, n_way, examples, places, seed, step):
        """What a sample consists of.

        (classes, turns, examples): classes (T, n_way), quarter turns (T, n_way) and
        examples of each class (T, n_way, examples); and an order of `places` places
        (T, places).
        """
        most = self.counts.max()
        classes = np.empty((len(tasks), n_way), np.int64)
        turns = np.zeros_like(classes)
        keys = np.empty((len(tasks), n_way, most))
        order = np.empty((len(tasks), places), np.int64)
        for t, rng in enumerate(task_rngs(seed, step, tasks)):
            classes[t] = rng.choice(len(self), n_way, replace=False)
            keys[t] = rng.random(keys.shape[1:])
            if self.rotations == "per_task":
                turns[t] = rng.integers(4, size=n_way)
            # the last, so that it changes nothing else of a task
            order[t] = rng.permutation(places)
        if self.rotations == "as_classes":
            turns, classes = np.divmod(classes, len(self.names))
        keys[np.arange(most) >= self.counts[classes][..., None]] = 1  # no example: after all others
        shuffled = keys.argsort(axis=-1)  # the order of random keys
        return (classes, turns, shuffled[..., :examples]), order

    def _pictures(self, classes, turns, examples):
        """uint8 (T, n_way, k_shot + k_query, (C,) H, W), each class turned."""
        pictures = self._examples(classes, examples)
        for quarters in (1, 2, 3):
            turned = turns == quarters
            pictures[turned] = np.rot90(pictures[turned], quarters, axes=(-2, -1))
        return pictures

    def _inputs(self, pictures, dtype):
        """uint8 (T, n_way, k, (C,) H, W) -> (T, n_way * k, C or 1, H, W) in [0, 1]."""
        tasks, n_way, k, *channels, height, width = pictures.shape
        shape = (tasks, n_way * k, *(channels or [1]), height, width)
        values = 255 - pictures if self.invert else pictures
        return np.divide(values, 255, dtype=dtype).reshape(shape)


def _labels(tasks, n_way, k):
    return np.tile(np.repeat(np.arange(n_way, dtype=np.int64), k), (tasks, 1))


def _reordered(order, *arrays):
    """Arrays (T, N, ...) with the examples of each task in its order (T, N)."""
    each = np.arange(len(order))[:, None]
    return [a[each, order] for a in arrays]
