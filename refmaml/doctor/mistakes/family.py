"""The type `Family`: a mistake with numbers of its own, which are fitted.

A momentum, a limit, a damping can have any value. So such a mistake is no candidate of
the dictionary but a function of its numbers; fitting.py finds them.
"""

from typing import Any, NamedTuple


class Number(NamedTuple):
    """One number of a family.

    name        what it is called in the diagnosis
    starts      where its search starts, the likeliest value first
    low, high   between which values it lies
    least       a size below which the number changes next to nothing; steps of the
                differences are relative to the larger of this and the number
    simple      values that are tried first when the fitted number is rounded
    """

    name: str
    starts: tuple
    low: float = -float("inf")
    high: float = float("inf")
    least: float = 1e-3
    simple: tuple = (0.0,)


class Family(NamedTuple):
    """A mistake with fitted numbers.

    row      the mistake's number in the dictionary
    name     values -> what is wrong, in a few words
    numbers  (Number, ...)
    changes  (case, *values) -> {field of Loop or Implicit: its wrong value}
    fix      values -> {framework: what to do}
    per      None; or "alpha": the number may also be a constant over the case's step
             size, as where a function has a step size of its own; `name` is then called
             with `own=` that constant
    title    the name without numbers, for the list of known mistakes
    backward whether only the way back is changed, which first-order methods lack
    exchangeable   whether the numbers can be exchanged where the loss is quadratic, so
                   that they are fitted on another case
    """

    row: str
    name: Any
    numbers: tuple
    changes: Any
    fix: Any
    per: str | None = None
    title: str = ""
    backward: bool = False
    exchangeable: bool = False


def plain(value):
    """A number as text: 0.9, 5e-4, 1e-08 without zeros in front of the exponent."""
    text = f"{value:.6g}"
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if e else text
