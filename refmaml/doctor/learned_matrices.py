"""Meta-Curvature's matrices in the inner loop of a `Loop`, right or as a mistake has
them.

The matrices are a rule in front of the loop's own rule (refmaml/methods/curvature.py).
`Loop.matrices` says which form they have:

    "adjoint"         the method's
    "untransposed"    the adjoint goes through M in place of M'
    "not in adjoint"  the adjoint goes through H without the matrices
    "ignored"         the steps take the gradient itself
    "alone"           the adjoint of one matrix leaves out the other ones
    "exchanged"       the adjoint of each matrix is transposed
    "query"           their gradient has the query gradient in place of lam_{k+1}
    "negative", "zero", "first", "last"    as with learned step sizes
"""

from dataclasses import dataclass, replace

import numpy as np

from refmaml.methods.curvature import Curvature, identities
from refmaml.methods.meta_curvature import MetaCurvature


@dataclass(frozen=True, eq=False)
class Matrices(Curvature):
    """Curvature in one of the forms above."""

    form: str = "adjoint"

    def product(self, net, g, turned=False):
        if self.form == "ignored" or (turned and self.form == "not in adjoint"):
            return g
        return super().product(net, g, turned and self.form != "untransposed")

    def of_matrices(self, net, D, g):
        if self.form == "alone":
            plain = Curvature(self.blocks, identities(self.blocks), self.rule)
            return plain.of_matrices(net, D, g)
        if self.form == "exchanged":
            return super().of_matrices(net, np.broadcast_to(g, D.shape), D)
        return super().of_matrices(net, D, g)


def with_matrices(case, loop):
    """The loop with the matrices of a case in front of its rule, if there are any."""
    if not isinstance(case.method, MetaCurvature):
        return loop
    right = case.method.curvature(case.net, case.meta)
    return replace(loop, rule=Matrices(right.blocks, right.matrices, loop.rule, [], loop.matrices))


def fresh(loop):
    """The loop with matrices that have collected nothing yet."""
    if not isinstance(loop.rule, Matrices):
        return loop
    return replace(loop, rule=replace(loop.rule, collected=[]))


def with_their_gradient(rows, loop, run, direct):
    """The rows (T, P) with the gradient of the matrices behind them, if there are any.

    direct  (T, P), the query gradient
    """
    if not isinstance(loop.rule, Matrices):
        return rows
    return np.concatenate([rows, of_matrices(loop, run, 0 * rows + direct)], axis=1)


def of_matrices(loop, run, direct):
    """The gradient of the matrices, (T, M), as the loop's form has it."""
    rule, steps = loop.rule, loop.rule.collected[::-1]
    if rule.form in ("zero", "ignored") or not steps:
        size = len(rule.matrices)
        return np.zeros((len(direct), size))
    if rule.form in ("first", "last"):
        return steps[0 if rule.form == "first" else -1]
    if rule.form == "query":
        pairs = zip(run.rates, run.arguments, strict=True)
        return sum(rule.of_matrices(run.net, -A * direct, g) for A, (_, g, *_) in pairs)
    return -sum(steps) if rule.form == "negative" else sum(steps)
