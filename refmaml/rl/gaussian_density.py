"""The logarithm of a Gaussian density with independent entries: four passes.

    log pi = sum_d ( -e^2 / 2 - l - log(2 pi) / 2 ),  e = (a - mu) / s,  s = e^l

A step of a trajectory has one log-probability: the SUM over the action's dimensions d.
Shapes: a, mu (T, B, A), l (T or 1, A), log pi (T, B). With q = dM/d log pi (T, B):

    dmu = q e / s                   dl = sum_B q (e^2 - 1)
    re  = -rmu / s - e rl
    R{log pi} = sum_d ( (e / s) rmu + (e^2 - 1) rl )
    rdmu = rq e / s + q (re - e rl) / s
    rdl  = sum_B ( rq (e^2 - 1) + 2 q e re )
"""

from math import log, pi
from typing import Any, NamedTuple

from refmaml.layers.layer import Array


class Standardised(NamedTuple):
    """e (T, B, A) and 1 / s (T or 1, 1, A)."""

    e: Array
    inverse: Array


def forward(xp: Any, mu: Array, l: Array, actions: Array) -> tuple[Array, Standardised]:
    """log pi (T, B) of the actions."""
    inverse = xp.exp(-l)[:, None]
    e = (actions - mu) * inverse
    constant = l.shape[1] * log(2 * pi) / 2
    return -(e * e).sum(axis=2) / 2 - l.sum(axis=1)[:, None] - constant, Standardised(e, inverse)


def backward(saved: Standardised, q: Array) -> tuple[Array, Array]:
    """dmu (T, B, A) and dl (T, A) of sum_B q log pi."""
    e, inverse = saved
    q = q[..., None]
    return q * e * inverse, (q * (e * e - 1)).sum(axis=1)


def r_forward(saved: Standardised, rmu: Array, rl: Array) -> tuple[Array, Array]:
    """R{log pi} (T, B), and re; rl (T or 1, A)."""
    e, inverse = saved
    rl = rl[:, None]
    return (e * inverse * rmu + (e * e - 1) * rl).sum(axis=2), -rmu * inverse - e * rl


def r_backward(
    saved: Standardised, q: Array, rq: Array | None, re: Array, rl: Array
) -> tuple[Array, Array]:
    """R{dmu} and R{dl}; rq None: q has no tangent."""
    e, inverse = saved
    q = q[..., None]
    rdmu, rdl = q * (re - e * rl[:, None]) * inverse, 2 * (q * e * re).sum(axis=1)
    if rq is None:
        return rdmu, rdl
    dmu, dl = backward(saved, rq)
    return rdmu + dmu, rdl + dl
