"""iMAML's inner solver by gradient descent, or by another update rule (iMAML-GD)."""

from typing import Any

from refmaml.layers.layer import Array
from refmaml.methods.inner_loop_adjoint import step
from refmaml.methods.proximal import Solved, objective_gradient, relative_residual, solved
from refmaml.model import Net


def proximal_step(
    net: Net, phi: Array, A: Array, grad: Array, theta: Array, strength: float
) -> Array:
    """phi - A (grad f + lambda (phi - theta))."""
    out = net.kernels.empty(grad.shape, grad.dtype)
    net.kernels.vector_proximal_step(out, phi, A[None], grad, theta, strength)
    return out


def gradient_descent(
    net: Net, theta: Array, x: Array, y: Array,
    strength: float, mask: Array, method: Any, stage: str,
) -> Solved:  # fmt: skip
    """phi <- phi - alpha grad F(phi), inner_steps times.

    With inner_tol > 0 a task ends earlier, at
    |grad F| <= inner_tol |lambda (phi - theta)|.
    """
    phi, A, with_tol = theta, method.inner_lr * mask, method.inner_tol > 0
    rule, state = method.rule, method.rule.init(theta)
    for k in range(method.inner_steps + 1):
        last = k == method.inner_steps
        primal = net.primal(phi, x, y, keep=last or with_tol)
        net.require_finite(primal, phi, x, f"{stage}, inner step {k}")
        if last or with_tol:
            gradient = objective_gradient(primal, phi, theta, strength, mask)
            residual = relative_residual(net.kernels, gradient, phi, theta, strength)
            ended = solved(residual, k, method)
            if last or ended.all():
                return phi, primal, residual
        grad = primal.grad
        del primal
        if rule.plain:
            after = proximal_step(net, phi, A, grad, theta, strength)
        else:
            g = mask * (grad + strength * (phi - theta))
            d, state = rule.direction(net, phi, g, state, rule.factors(k + 1))
            after = step(net, phi, A, d)
        phi = net.kernels.xp.where(ended[:, None], phi, after) if with_tol else after
    raise AssertionError("the last step returns")
