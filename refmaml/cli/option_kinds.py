"""Kinds of option values: how each is read from text or JSON, and what it must be."""

from math import isfinite
from typing import Any, NamedTuple

from refmaml.update_rules.from_text import rule_from_text


class Kind(NamedTuple):
    """How a value is read, from the command line's text or a checkpoint's JSON.

    read      value -> value; raises ValueError or TypeError for a wrong one,
              OverflowError for a number that is too large
    expected  what the value must be, for error messages
    nargs     as argparse's; 0 marks a switch --name / --no-name
    """

    read: Any
    expected: str
    nargs: Any = None


def accept(condition, value):
    """The value; ValueError unless `condition` holds."""
    if not condition:
        raise ValueError(value)
    return value


def count(least, most=2**31 - 1):
    """An integer from `least` to `most`."""

    def read(value):
        number = int(value) if isinstance(value, str) else value
        accept(type(number) is int and number >= least, number)
        if number > most:
            raise OverflowError(number)
        return number

    return Kind(read, f"an integer >= {least}")


def count_or_share(least):
    """An integer >= `least`, or a fraction in (0, 1)."""
    whole = count(least)

    def read(value):
        number = float(value) if isinstance(value, str) else value
        if type(number) is float and 0 < number < 1:
            return number
        return whole.read(value)

    return Kind(read, f"an integer >= {least}, or a fraction below 1")


def positive():
    """A finite number > 0."""

    def read(value):
        number = float(value) if isinstance(value, str) else value
        return accept(
            type(number) in (int, float) and isfinite(number) and number > 0, float(number)
        )

    return Kind(read, "a finite number > 0")


def not_negative():
    """A finite number >= 0."""

    def read(value):
        number = float(value) if isinstance(value, str) else value
        return accept(
            type(number) in (int, float) and isfinite(number) and number >= 0, float(number)
        )

    return Kind(read, "a finite number >= 0")


def step_sizes(most):
    """A finite number > 0, or a list of them: as text, with commas between them."""

    def read(value):
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, list):
            return positive().read(values)
        accept(0 < len(values) <= most, values)
        numbers = [positive().read(number) for number in values]
        return numbers if isinstance(value, list) or len(numbers) > 1 else numbers[0]

    return Kind(read, "a finite number > 0, or one for each inner step with commas between them")


def update_rule():
    """The text of an update rule; wrong ones raise an ArgumentError about "rule"."""

    def read(value):
        rule_from_text(value)
        return value

    return Kind(read, "an update rule")


def choice(values):
    """One of some texts."""

    def read(value):
        return accept(isinstance(value, str) and value in values, value)

    return Kind(read, f"one of {', '.join(values)}")


def text():
    """A text that is not empty."""
    return Kind(lambda value: accept(isinstance(value, str) and value, value), "some text")


def named_object():
    """An object in a Python file."""
    return Kind(
        lambda value: accept(
            isinstance(value, str) and value.rpartition(":")[2].isidentifier(), value
        ),
        "NAME, or FILE.py:NAME",
    )


def numbers():
    """A list of finite numbers: as text, with commas between them."""

    def read(value):
        values = value.split(",") if isinstance(value, str) else value
        return [accept(isfinite(number), number) for number in map(float, values)]

    return Kind(read, "numbers with commas between them")


def numbers_or_object():
    """A list of finite numbers, or an object in a Python file."""

    def read(value):
        try:
            return numbers().read(value)
        except ValueError:
            return named_object().read(value)

    return Kind(read, "numbers with commas between them, or the NAME of a function")


def png_path():
    """The path of a PNG; None where the option has no value."""
    return Kind(
        lambda value: value if value is None else accept(value.endswith(".png") and value, value),
        "a path that ends in .png",
        "?",
    )


def several(kind, expected):
    """A list of values of a kind."""

    def read(values):
        return [kind.read(value) for value in accept(isinstance(values, list), values)]

    return Kind(read, expected, "*")


def switch():
    """True or False, given as --name or --no-name."""
    return Kind(lambda value: accept(type(value) is bool, value), "true or false", 0)


def from_table(kind):
    """The Kind of an option of the methods' table: its `kind` there."""
    if isinstance(kind, tuple):
        return choice(kind)
    return {
        "integer >= 1": count(1),
        "integer >= 0": count(0, 2**64 - 1),
        "integers >= 1": several(count(1), "integers >= 1"),
        "number > 0": positive(),
        "number >= 0": not_negative(),
        "switch": switch(),
    }[kind]
