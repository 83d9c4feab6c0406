"""iMAML's inner solver by gradient descent with step control.

Each task has a step s of its own, which starts as inner_lr. A trial c = phi - s grad F
stands unless F rises, and s grows; else phi stays where it was, and s shrinks. So F
never rises, whatever the curvature is: descent with a fixed step diverges once the
largest eigenvalue of H + lambda I exceeds 2 / inner_lr.
Source of the rule: the "bold driver", Vogl et al. 1988; Battiti 1989.
"""

from typing import Any, NamedTuple

import numpy as np

from refmaml.layers.layer import Array
from refmaml.methods.conjugate_gradients import dot
from refmaml.methods.inner_loop_adjoint import scaled
from refmaml.methods.newton_cg import moved
from refmaml.methods.proximal import Solved, objective_gradient, relative_residual, solved
from refmaml.model import Net

GROW, SHRINK = 1.3, 0.5  # factors on s, after a trial that stands and one that does not
ROUNDING = 8  # eps |F|: a smaller change of F may be rounding of its sum of losses


class Point(NamedTuple):
    """phi (T, P), F(phi) (T,) and grad F(phi) (T, P)."""

    phi: Array
    value: Array
    gradient: Array


def controlled_descent(
    net: Net, theta: Array, x: Array, y: Array,
    strength: float, mask: Array, method: Any, stage: str,
) -> Solved:  # fmt: skip
    """inner_steps trials, one pass each, and a pass at the last phi.

    With inner_tol > 0 a task ends earlier, at
    |grad F| <= inner_tol |lambda (phi - theta)|.
    """
    xp, prox = net.kernels.xp, (theta, strength, mask)
    phi, ended = xp.repeat(theta, len(x), axis=0), None
    primal = net.primal(phi, x, y, keep=False)
    net.require_finite(primal, phi, x, f"{stage}, inner step 0")
    now = point(net, primal, phi, *prox)
    s = xp.full((len(x), 1), method.inner_lr, phi.real.dtype)
    for k in range(method.inner_steps):
        if method.inner_tol > 0:
            residual = relative_residual(net.kernels, now.gradient, now.phi, theta, strength)
            ended = solved(residual, k, method)
            if ended.all():
                break
        c = moved(net, now.phi, -s, now.gradient)
        trial = point(net, net.primal(c, x, y, keep=False), c, *prox)
        stands = does_not_rise(net.kernels, now, trial)
        s = xp.where(stands[:, None], GROW * s, SHRINK * s)
        now = chosen(xp, stands if ended is None else stands & ~ended, trial, now)
    primal = net.primal(now.phi, x, y)
    net.require_finite(primal, now.phi, x, f"{stage}, inner step {method.inner_steps}")
    gradient = objective_gradient(primal, now.phi, *prox)
    residual = relative_residual(net.kernels, gradient, now.phi, theta, strength)
    return now.phi, primal, residual


def point(net: Net, primal: Any, phi: Array, theta: Array, strength: float, mask: Array) -> Point:
    """The Point of a pass at phi. Overflow gives infinity or NaN."""
    with np.errstate(all="ignore"):
        d = phi - theta
        value = primal.loss + strength / 2 * dot(net.kernels, d, d)
        each = net.kernels.xp.full((len(phi), 1), strength, d.real.dtype)
        return Point(phi, value, scaled(net, mask, moved(net, primal.grad, each, d)))


def does_not_rise(kernels: Any, now: Point, trial: Point) -> Array:
    """Whether F(c) <= F(phi) in each task, (T,); false where F(c) is not finite.

    Where the difference is within rounding, gradients decide its sign, as they still
    have digits there: F(c) - F(phi) = -s/2 <grad F(phi), grad F(phi) + grad F(c)> up to
    the third order in s, and exactly on a quadratic.
    Source: the approximate Wolfe condition of Hager & Zhang 2005, section 4.
    """
    xp = kernels.xp
    with np.errstate(all="ignore"):
        change = (trial.value - now.value).real
        slope = dot(kernels, now.gradient, now.gradient + trial.gradient).real
        rounding = ROUNDING * np.finfo(change.dtype).eps * abs(now.value.real)
        lower = xp.where(abs(change) > rounding, change < 0, slope >= 0)
        return lower & xp.isfinite(change) & xp.isfinite(slope)


def chosen(xp: Any, where: Array, a: Point, b: Point) -> Point:
    """The tasks of a at `where`, those of b elsewhere."""
    rows = where[:, None]
    return Point(
        xp.where(rows, a.phi, b.phi),
        xp.where(where, a.value, b.value),
        xp.where(rows, a.gradient, b.gradient),
    )
