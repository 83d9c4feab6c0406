"""The split of classes into training, validation and test."""

from numbers import Integral, Real

from refmaml.errors import expect
from refmaml.tasks.streams import build_rng

SPLITS = ("train", "validation", "test")


def expect_share(name, value, least):
    """An integer >= `least`, or a fraction in (0, 1), or ArgumentError."""
    whole = isinstance(value, Integral) and value >= least
    fraction = isinstance(value, Real) and (0 < value < 1 or value == least == 0)
    known = (whole or fraction) and not isinstance(value, bool)
    expect(known, name, f"an integer >= {least}, or a fraction below 1", repr(value))


def rows_of(split, classes, split_seed, train_classes, validation_classes, what):
    """The numbers of the classes of a split, in the order of the shuffle.

    classes  how many there are. They are shuffled with `split_seed` and cut into the
             first `train_classes`, the next `validation_classes` and the rest; numbers
             below 1 are fractions of all classes, rounded
    what     the noun for them in error messages
    Raises ArgumentError for an empty split.
    """

    def number(n):
        return round(n * classes) if 0 < n < 1 else int(n)

    order = build_rng(split_seed).permutation(classes)
    held_in = number(train_classes)
    known = held_in + number(validation_classes)
    start, stop = {"train": (0, held_in), "validation": (held_in, known), "test": (known, classes)}[
        split
    ]
    expect(
        start < stop <= classes,
        "split",
        f"a non-empty split of {classes} {what}",
        f"{split!r} with train_classes={train_classes}, validation_classes={validation_classes}",
    )
    return order[start:stop]
