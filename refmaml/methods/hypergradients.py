"""Hypergradients: dM/d(step size, fields of the update rule, proximal strength).

A trace of the inner loop and its adjoint has all that they need. In an unrolled loop
every step adds its share; lam and the rule's state run through the steps again:

    dM/dalpha_k  = -<d_k, lam_{k+1}>              over the parameters that adapt
    dM/danchor   = sum_k <gam_k, phi_k - phi_0>
    dM/d(field)  = sum_k rule.hypergradients(step k)

iMAML's phi* solves grad f(phi) + lambda (phi - theta) = 0. Differentiate in lambda:
(H_f + lambda I) dphi*/dlambda = -(phi* - theta). With u = (I + H_f/lambda)^-1 grad g,

    dM/dlambda = grad g' dphi*/dlambda = -<u, phi* - theta> / lambda

With theta = 0 and a linear net that is the hypergradient of ridge regression.
Sources: Maclaurin, Duvenaud, Adams 2015, Algorithm 2; Franceschi, Donini, Frasconi,
Pontil 2017, section 3.1; the implicit one: Larsen, Svarer, Andersen, Hansen 1996.
"""

from dataclasses import dataclass, replace
from typing import Any

from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.imaml import IMAML
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import scaled
from refmaml.methods.meta_curvature import MetaCurvature
from refmaml.methods.meta_gradient import HYPER, MeanOverTasks, TaskGradients
from refmaml.model import Net

LEARNED = ("MetaSGD", "MAMLPlusPlus")  # their step sizes are meta-parameters


def with_hypergradients(work: MeanOverTasks) -> MeanOverTasks:
    """The work that also computes hypergradients.

    Raises ArgumentError for a method that does not differentiate its inner loop.
    """
    known = isinstance(work.method, DifferentiatedLoop | IMAML)
    wanted = "a method that differentiates its inner loop, such as MAML or iMAML"
    expect(known, "hyper", wanted, type(work.method).__name__)
    return replace(work, task_gradients=WithHypergradients(work.method))


@dataclass(frozen=True)
class WithHypergradients:
    """method.task_gradients, with hypergradients among the figures of its report."""

    method: Any

    def __call__(self, net: Net, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        found = self.method.task_gradients(net, meta, batch, True)
        of = of_strength if isinstance(self.method, IMAML) else of_unrolled_loop
        values = of(net, self.method, meta, found.trace)
        report = {**found.report, **{HYPER + name: a for name, a in values.items()}}
        return replace(found, trace=found.trace if trace else {}, report=report)


def of_strength(net: Net, method: IMAML, theta: Array, trace: dict) -> dict[str, Array]:
    """{"regularization": dM_t/dlambda (T,)}."""
    moved = trace["phi"][-1] - trace["phi"][0]
    return {"regularization": -(trace["u"][0] * moved).sum(axis=1) / method.regularization}


def of_unrolled_loop(net: Net, method: Any, meta: Array, trace: dict) -> dict[str, Array]:
    """{field: dM_t/d(field), (T,) or (T, n)}."""
    _, rates = method.start(net, meta)
    if isinstance(method, MetaCurvature):  # its matrices are part of the rule
        method = replace(method, rule=method.curvature(net, meta))
    rule, phis = method.rule, trace["phi"]
    steps, states = range(len(rates)), [rule.init(phis[0])]
    gradients = [
        method.inner_gradient(net, trace["inner_grad"][k], phis[k], phis[0]) for k in steps
    ]
    directions: list[Array] = []
    for k in steps:
        d, state = rule.direction(net, phis[k], gradients[k], states[k], rule.factors(k + 1))
        directions, states = [*directions, d], [*states, state]
    mask, sums, sig = method.adapting(net, meta), {}, {}  # type: Any, dict, dict
    for k in reversed(steps):
        dd = scaled(net, -rates[k], trace["lam"][k + 1])
        at = phis[k], gradients[k], states[k]
        shares = rule.hypergradients(net, dd, sig, *at, k + 1)
        gam, sig, _ = rule.pullback(net, dd, sig, *at, rule.factors(k + 1))
        shares = {**shares, "anchor": (mask * gam * (phis[k] - phis[0])).sum(axis=1)}
        sums = {name: sums.get(name, 0) + share for name, share in shares.items()}
    if type(method).__name__ in LEARNED:
        return sums
    each = [-(mask * directions[k] * trace["lam"][k + 1]).sum(axis=1) for k in steps]
    several = isinstance(method.inner_lr, tuple)
    return {"inner_lr": net.kernels.xp.stack(each, axis=1) if several else sum(each), **sums}
