"""iMAML's inner solvers for one task: each ends with a full pass at phi*.

refmaml/methods has them for all tasks at once, in modules of the same names.
"""

from typing import NamedTuple

import numpy as np

from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import part, row
from refmaml.kernels.whole_net import columns as at
from refmaml.kernels.whole_net.conjugate_gradients import conjugate_gradients
from refmaml.kernels.whole_net.derivatives import (
    cross_entropy_adjoint,
    outputs,
    primal,
    squared_error_adjoint,
)
from refmaml.kernels.whole_net.filter_order import transpose_filters
from refmaml.kernels.whole_net.operations import CROSS_ENTROPY
from refmaml.kernels.whole_net.passes import forward
from refmaml.kernels.whole_net.proximal import (
    inner_step,
    objective_gradient,
    relative_residual,
    squared_distance,
)
from refmaml.kernels.whole_net.solver_numbers import (
    ARMIJO,
    GROW,
    HALF,
    INNER,
    INNER_TOL,
    NEWTON_TOL,
    ONE,
    RATE,
    ROUNDING,
    SHRINK,
    STRENGTH,
    ZERO,
)
from refmaml.kernels.whole_net.update_rules import BLOCK, dot
from refmaml.kernels.whole_net.vectors import (
    add_product,
    add_scaled,
    copy,
    difference,
    is_finite,
    move,
    require_finite,
    scaled,
)

HALVINGS = 30  # of a Newton step before a task stands still


class Inner(NamedTuple):
    """The inner problem of a task, and its vectors.

    numbers        those of solver_numbers.py
    theta, mask, rates    where it starts; 1 where a parameter adapts; step sizes
    phi, other     two points: the one that is used last is returned
    wt             a point with transposed filters
    g, trial       gradients
    loss, flag     (1,): a loss; whether losses and gradients were finite
    residuals      a row of `residuals`
    """

    numbers: np.ndarray
    theta: np.ndarray
    mask: np.ndarray
    rates: np.ndarray
    phi: np.ndarray
    other: np.ndarray
    wt: np.ndarray
    g: np.ndarray
    trial: np.ndarray
    loss: np.ndarray
    flag: np.ndarray
    residuals: np.ndarray


@inner()
def pass_at(e, t, p, phi, g, work, winners):
    """The pass at phi, with grad f in g."""
    transpose_filters(e.table, e.lists, p.wt, phi)
    primal(e, t, p.loss, phi, p.wt, g, work, winners)


@inner()
def residual(p, phi, g, scratch):
    """The relative residual; grad F in g, which has grad f."""
    strength = p.numbers[STRENGTH]
    objective_gradient(g, phi, p.theta, p.mask, strength)
    return relative_residual(g, phi, p.theta, strength, scratch)


@inner()
def gradient_descent(full, lean, t, p, steps, kind, rule_numbers, memory, work, rwork, winners):
    """`steps` steps from theta to p.phi; fewer where inner_tol is reached.

    full, lean: the examples with a program for either kind of pass; the passes before
    the last one are lean in the memory for tangents.
    """
    n, last = p.numbers, steps
    with_tol = n[INNER_TOL] > 0
    copy(p.phi, p.theta)
    for k in range(steps + 1):
        if k == last or with_tol:
            pass_at(full, t, p, p.phi, p.g, work, winners)
        else:
            pass_at(lean, t, p, p.phi, p.g, rwork, winners)
        require_finite(p.flag, p.loss, p.g)
        if k == last or with_tol:
            copy(p.trial, p.g)
            p.residuals[INNER] = residual(p, p.phi, p.trial, p.other)
            if k == last or (k > 0 and p.residuals[INNER] <= n[INNER_TOL]):
                return
        inner_step(k, 0, p.phi, p.rates, p.g, p.theta, p.mask, n[STRENGTH], kind, rule_numbers,
                   memory, p.other)  # fmt: skip


@inner()
def objective(p, phi, g, scratch):
    """F(phi) from f(phi) in p.loss; grad F in g, which has grad f."""
    strength = p.numbers[STRENGTH]
    objective_gradient(g, phi, p.theta, p.mask, strength)
    d = squared_distance(phi, p.theta, scratch)
    return p.loss[0] + p.numbers[HALF] * strength * d


@inner()
def slope_between(one, g, trial, scratch):
    """<g, g + trial>, of a gradient and that of a trial."""
    lanes = np.zeros(32, g.dtype)
    for lo in range(0, len(g), BLOCK):
        hi = min(lo + BLOCK, len(g))
        total = part(scratch, 0, hi - lo)
        move(total, part(g, lo, hi), one, part(trial, lo, hi))
        add_product(lanes, part(g, lo, hi), total)
    return lanes.sum()


@inner()
def does_not_rise(n, now, value, slope):
    """Whether F(c) <= F(phi); false where F(c) is not finite.

    Within rounding, gradients decide.
    """
    change = value - now
    lower = change < 0 if abs(change) > n[ROUNDING] * abs(now) else slope >= 0
    return lower and is_finite(change) and is_finite(slope)


@inner()
def controlled_descent(full, lean, t, p, steps, work, rwork, winners):
    """`steps` trials from theta, of which those stand that do not raise F."""
    n, s, moved = p.numbers, p.numbers[RATE], False
    phi, c, g, trial = p.phi, p.other, p.g, p.trial
    copy(phi, p.theta)
    pass_at(lean, t, p, phi, g, rwork, winners)
    require_finite(p.flag, p.loss, g)
    now = objective(p, phi, g, trial)
    for k in range(steps):
        if n[INNER_TOL] > 0 and k > 0:
            r = relative_residual(g, phi, p.theta, n[STRENGTH], trial)
            if r <= n[INNER_TOL]:
                break
        move(c, phi, -s, g)
        pass_at(lean, t, p, c, trial, rwork, winners)
        value = objective(p, c, trial, p.wt)
        if does_not_rise(n, now, value, slope_between(n[ONE], g, trial, p.wt)):
            phi, c, g, trial, moved = c, phi, trial, g, not moved
            now, s = value, n[GROW] * s
        else:
            s *= n[SHRINK]
    if moved:
        copy(p.phi, phi)
    pass_at(full, t, p, p.phi, g, work, winners)
    require_finite(p.flag, p.loss, g)
    p.residuals[INNER] = residual(p, p.phi, g, trial)


# ---- Newton steps --------------------------------------------------------------------


@inner()
def newton_cg(full, lean, t, p, system, steps, cg_steps, work, rwork, winners):
    """`steps` Newton steps from theta, each by CG and a line search."""
    n = p.numbers
    copy(p.phi, p.theta)
    for k in range(steps + 1):
        pass_at(full, t, p, p.phi, p.g, work, winners)
        require_finite(p.flag, p.loss, p.g)
        p.residuals[INNER] = residual(p, p.phi, p.g, p.other)
        ended = k > 0 and n[INNER_TOL] > 0 and p.residuals[INNER] <= n[INNER_TOL]
        if k == steps or ended:
            return
        scaled(system.r, -n[ONE], p.g)
        _, iterations = conjugate_gradients(full, t, system, True, cg_steps, n[NEWTON_TOL],
                                            n[STRENGTH], p.residuals)  # fmt: skip
        if iterations == 0:
            scaled(system.x, -n[ONE], p.g)
        s = line_search(lean, t, p, system.x, rwork, winners)
        add_scaled(p.phi, s, system.x)


@inner()
def line_search(lean, t, p, d, rwork, winners):
    """The largest s = 1, 1/2, ... that lowers F enough along d; 0 where none does."""
    n, before = p.numbers, p.loss[0]
    slope, square = dot(p.g, d), dot(d, d)
    difference(p.other, p.phi, p.theta)
    pull, s = dot(p.other, d), n[ONE]
    for _ in range(HALVINGS):
        move(p.other, p.phi, s, d)
        loss_at(lean, t, p, p.other, rwork, winners)
        proximal = n[STRENGTH] * (s * pull + s * s * square * n[HALF])
        change = p.loss[0] - before + proximal
        if change <= n[ARMIJO] * s * slope + n[ROUNDING] * abs(before):
            return s
        s *= n[HALF]
    return n[ZERO]


@inner()
def loss_at(e, t, p, phi, work, winners):
    """Fills p.loss with f(phi)."""
    forward(e.table, e.reals, e.lists, e.N, row(e.x, t), phi, work, winners)
    z, dz = outputs(e.table, at.Y, work, e.N), outputs(e.table, at.DY, work, e.N)
    if e.loss == CROSS_ENTROPY:
        cross_entropy_adjoint(p.loss, dz, z, row(e.labels, t % len(e.labels)), e.scale)
    else:
        squared_error_adjoint(p.loss, dz, z, row(e.targets, t % len(e.targets)), e.scale)
