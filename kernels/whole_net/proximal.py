"""Arithmetic of proximal inner loops on vectors of one task.

    F(phi) = f(phi) + (lambda/2) |phi - theta|^2
    grad F = grad f + lambda (phi - theta)

refmaml/methods/proximal.py has the formulas, on vectors of all tasks. Vectors are in
product order here, and sums have 32 parts side by side: sums differ from those of the
reference in their rounding.
"""

from math import sqrt

import numpy as np

from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.unowned_views import part, row
from refmaml.kernels.whole_net.rule_numbers import PLAIN, G
from refmaml.kernels.whole_net.update_rules import BLOCK, dot, row_of, take_step
from refmaml.kernels.whole_net.vectors import add_product, copy, difference


@inner()
def objective_gradient(g, phi, theta, mask, strength):
    """g = mask * (g + lambda (phi - theta))."""
    for i in range(len(g)):
        g[i] = mask[i] * (g[i] + strength * (phi[i] - theta[i]))


@inner()
def proximal_step(phi, rates, g, theta, strength):
    """phi -= rates (g + lambda (phi - theta))."""
    for i in range(len(phi)):
        phi[i] -= rates[i] * (g[i] + strength * (phi[i] - theta[i]))


@inner()
def inner_step(k, begun, phi, rates, g, theta, mask, strength, kind, numbers, memory, scratch):
    """Step k of plain descent or of an update rule: phi from grad f in g.

    kind, numbers (steps, COLUMNS), memory: the rule (update_rules.py). begun: 1 if its
    state before step 0 is in its memory; 0: it is 0. Changes g.
    """
    if kind == PLAIN:
        proximal_step(phi, rates, g, theta, strength)
    else:
        objective_gradient(g, phi, theta, mask, strength)
        copy(row(memory, row_of(G, 0, len(memory))), g)
        copy(scratch, phi)
        take_step(kind, k + begun, phi, scratch, rates, row(numbers, k), memory)


@inner()
def squared_distance(phi, theta, scratch):
    """|phi - theta|^2. scratch: room for BLOCK numbers."""
    lanes = np.zeros(32, phi.dtype)
    for lo in range(0, len(phi), BLOCK):
        hi = min(lo + BLOCK, len(phi))
        d = part(scratch, 0, hi - lo)
        difference(d, part(phi, lo, hi), part(theta, lo, hi))
        add_product(lanes, d, d)
    return lanes.sum()


@inner()
def relative_residual(gradient, phi, theta, strength, scratch):
    """|grad F| / |lambda (phi - theta)|; 0 / 0 counts as 0, a / 0 as infinite."""
    zero = strength - strength
    scale = strength * sqrt(squared_distance(phi, theta, scratch))
    size = sqrt(dot(gradient, gradient))
    if scale > zero:
        return size / scale
    return strength / zero if size > zero else zero
