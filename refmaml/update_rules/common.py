"""What several update rules use."""

from typing import Any, NoReturn

from refmaml.arguments import check_not_negative, is_number
from refmaml.errors import NotDifferentiableError, expect
from refmaml.layers.layer import Array
from refmaml.update_rules.rule import State


def zeros(phi: Array, *names: str) -> State:
    """A state of zeros, shared by all tasks where phi is."""
    return {name: 0 * phi for name in names}


def inner(a: Array, b: Array) -> Array:
    """<a, b> of each task, (T,)."""
    return (a * b).sum(axis=1)


def total(a: Array) -> Array:
    """The sum over the parameters of each task, (T,)."""
    return a.sum(axis=1)


def root_adjoint(net: Any, dr: Array, r: Array, rule: Any) -> Array:
    """The adjoint of u from dr, that of r = sqrt(u): dr / (2 r).

    It is 0 where dr and r are 0.
    r = 0 with dr = 0 is the exact limit of a coordinate whose gradients were all 0:
    its step is g / eps to first order. r = 0 with another dr is a gradient whose square
    underflowed; there the derivative of the root does not exist.
    """
    xp, zero = net.kernels.xp, r.real == 0
    net.require(~(zero & (dr != 0)).any(), lambda: refuse_root(rule))
    return xp.where(zero, 0, dr) / (2 * xp.where(zero, 1, r))


def refuse_root(rule: Any) -> NoReturn:
    """Raise NotDifferentiableError: a root at 0."""
    raise NotDifferentiableError(
        f"{type(rule).__name__}: expected gradients whose squares do not underflow where the "
        "root is differentiated, got a second moment of 0 beside a gradient that is not 0 "
        "(eps_root > 0 gives the root a derivative there)"
    )


def check_fractions(**values: Any) -> None:
    """Raise ArgumentError naming the first value that is not a number in [0, 1)."""
    for name, value in values.items():
        expect(is_number(value) and 0 <= value < 1, name, "a number in [0, 1)", repr(value))


def check_eps(eps: Any, eps_root: Any) -> None:
    """Raise ArgumentError unless eps, eps_root >= 0 and one of them is positive."""
    check_not_negative(eps=eps, eps_root=eps_root)
    expect(eps > 0 or eps_root > 0, "eps", "a number > 0 (or eps_root > 0)", repr(eps))
