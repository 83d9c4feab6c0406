"""iMAML's inner solver by Newton steps with truncated CG and a line search."""

from typing import Any

import numpy as np

from refmaml.layers.layer import Array
from refmaml.methods.conjugate_gradients import dot, iterate
from refmaml.methods.inner_loop_adjoint import scaled, step
from refmaml.methods.proximal import Solved, objective_gradient, relative_residual, solved
from refmaml.model import Net

ARMIJO, HALVINGS = 1e-4, 30  # sufficient decrease; halvings of s before a task stands still
CG_TOL = 1e-10  # relative residual at which a Newton direction is exact enough


def newton_cg(
    net: Net, theta: Array, x: Array, y: Array,
    strength: float, mask: Array, method: Any, stage: str,
) -> Solved:  # fmt: skip
    """Hessian-free: phi <- phi + s d, where a few CG iterations give d.

    They solve (H_f + lambda I) d = -grad F.
    Where CG meets negative curvature at once, d is the negative gradient; s halves
    until F falls by ARMIJO s <grad F, d>.
    """
    phi = net.kernels.xp.repeat(theta, len(x), axis=0)
    for k in range(method.inner_steps + 1):
        primal = net.primal(phi, x, y)
        net.require_finite(primal, phi, x, f"{stage}, Newton step {k}")
        gradient = objective_gradient(primal, phi, theta, strength, mask)
        residual = relative_residual(net.kernels, gradient, phi, theta, strength)
        ended = solved(residual, k, method)
        if k == method.inner_steps or (method.inner_tol > 0 and ended.all()):
            return phi, primal, residual
        direction = newton_direction(net, primal, gradient, strength, mask, method.cg_steps)
        loss = primal.loss
        del primal
        after = backtrack(net, loss, phi, direction, gradient, theta, x, y, strength)
        phi = net.kernels.xp.where(ended[:, None], phi, after) if method.inner_tol > 0 else after
    raise AssertionError("the last step returns")


def newton_direction(
    net: Net, primal: Any, gradient: Array, strength: float, mask: Array, cg_steps: int
) -> Array:
    """d with (H_f + lambda I) d = -grad F, by truncated CG.

    It is -grad F where CG took no step.
    """
    A = -strength * mask

    def product(v: Array) -> Array:  # H_aa v + lambda v, of a v that is 0 where nothing adapts
        return step(net, scaled(net, mask, net.hvp(primal, v)), A, v)

    solution = iterate(product, -gradient, cg_steps, CG_TOL, net.kernels, net.early_stop)
    return net.kernels.xp.where((solution.iterations > 0)[:, None], solution.x, -gradient)


def backtrack(
    net: Net, loss: Array, phi: Array, direction: Array, gradient: Array,
    theta: Array, x: Array, y: Array, strength: float,
) -> Array:  # fmt: skip
    """phi + s d, in each task with the largest s = 1, 1/2, ... that lowers F enough.

    s = 0 where none does. F's decrease is a difference of losses plus the exact change
    of the proximal term. Within the loss's own rounding a step that does not raise F is
    accepted: near the solution no smaller decrease can be seen. Each halving computes
    only the tasks whose s is still too long.
    """
    k, T = net.kernels, len(phi)
    slope, pull, square = (dot(k, a, direction) for a in (gradient, phi - theta, direction))
    rounding = 8 * np.finfo(loss.dtype).eps * abs(loss)
    s, left = np.ones((T, 1), phi.dtype), np.arange(T)  # NumPy arrays on every kernel set
    terms = (phi, direction, x, y, loss, slope, pull, square, rounding)
    for _ in range(HALVINGS):
        s_, rows = k.arrays(s[left], left)
        left_ones = terms if len(left) == T else [a[rows] for a in terms]
        phi_, d, x_, y_, loss_, slope_, pull_, square_, rounding_ = left_ones
        proximal = strength * (s_[:, 0] * pull_ + s_[:, 0] ** 2 * square_ / 2)
        change = net.loss(moved(net, phi_, s_, d), x_, y_) - loss_ + proximal
        left = left[k.to_host(~(change <= ARMIJO * s_[:, 0] * slope_ + rounding_))]
        if len(left) == 0:
            break
        s[left] /= 2
    s[left] = 0
    (s_,) = k.arrays(s)
    return moved(net, phi, s_, direction)


def moved(net: Net, phi: Array, s: Array, direction: Array) -> Array:
    """phi + s d, s (T, 1)."""
    out = net.kernels.empty(phi.shape, phi.dtype)
    net.kernels.vector_move(out, phi, s, direction)
    return out
