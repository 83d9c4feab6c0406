"""The two recursions of the family: the inner loop forward, its adjoint backward.

    phi_{k+1} = phi_k - A_k * grad f(phi_k)                      k = 0 .. K-1
    lam_K     = grad g(phi_K)
    lam_k     = lam_{k+1} - H_f(phi_k) (A_k * lam_{k+1})         k = K-1 .. 0
    dM/dphi_0 = lam_0         dM/dA_k = -grad f(phi_k) * lam_{k+1}

A_k is a vector of step sizes. The adjoint is the chain rule read from the end:
d phi_{k+1} / d phi_k = I - diag(A_k) H_f(phi_k), and H_f is symmetric.
It needs the passes of the inner loop in the opposite order: they are stored, or
computed again one by one.

An update rule replaces grad f(phi_k) by a direction d_k, and its pullback hands
gam_k to the product in place of -A_k * lam_{k+1} (update_rules/rule.py). A proximal
term (anchor/2) |phi - phi_0|^2 adds anchor (phi_k - phi_0) to the gradient, hence
anchor gam_k to lam_k and -anchor gam_k to lam_0.
Sources: Finn et al. 2017 (MAML), eq. 1; Rajeswaran et al. 2019, section 2.1; the
recursion with Hessian-vector products: MixFlow-MG, Kemaev et al. 2025.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.model import Net


def step_sizes(net: Net, inner_lr: float, adapts: tuple, frozen: tuple, dtype: Any) -> Array:
    """A (P,): inner_lr on the parameters in `adapts` and not in `frozen`, else 0."""
    return net.kernels.xp.full(net.num_params, inner_lr, dtype) * net.adapt_mask(adapts, frozen)


class Descent(NamedTuple):
    """phi_0 .. phi_K; before each step, the rule's state and the pass."""

    phis: list
    states: list
    passes: Sequence


def descend(
    net: Net, loop: Any, phi: Array, rates: list[Array], x: Array, y: Array, keep: str = "passes"
) -> Descent:
    """The inner loop from phi (1 or T, P).

    loop   the InnerLoop: its update rule, proximal term and mini-batches
    rates  [A_0, ..., A_{K-1}], each (P,)
    keep   what stays in memory, and so how memory grows with K:
           "passes"   the passes with their activations
           "phis"     the vectors phi_k; a pass is computed again when it is read
           "last"     phi_K alone, and no passes: memory does not grow with K
    """
    rule, sets = loop.rule, loop.support_sets(net, x, y)
    state = rule.init(phi)
    phis, states, primals = [phi], [state], []
    for k, A in enumerate(rates):
        x_k, y_k = sets[k]
        primal = net.primal(phi, x_k, y_k, keep == "passes")
        net.require_finite(primal, phi, x_k, f"support set, inner step {k}")
        g = loop.inner_gradient(net, primal.grad, phi, phis[0])
        d, state = rule.direction(net, phi, g, state, rule.factors(k + 1))
        phi = step(net, phi, A, d)
        primals += [primal] if keep == "passes" else []
        phis = [phis[0], phi] if keep == "last" else [*phis, phi]
        states = [*states, state] if keep != "last" else []
    return Descent(phis, states, primals if keep == "passes" else Recomputed(net, phis[:-1], sets))


def step(net: Net, a: Array, A: Array, b: Array) -> Array:
    """a - A * b, a row for each task; A (P,)."""
    out = net.kernels.empty(b.shape, np.result_type(a.dtype, A.dtype, b.dtype))
    net.kernels.vector_step(out, a, A[None], b)
    return out


def scaled(net: Net, A: Array, b: Array) -> Array:
    """A * b, a row for each task; A (P,)."""
    out = net.kernels.empty(b.shape, np.result_type(A.dtype, b.dtype))
    net.kernels.vector_scale(out, A[None], b)
    return out


class Recomputed(Sequence):
    """The passes at phis; reading one recomputes it bit-identically; no cache."""

    def __init__(self, net: Net, phis: list[Array], sets: Sequence) -> None:
        self.net, self.phis, self.sets = net, phis, sets

    def __len__(self) -> int:
        return len(self.phis)

    def __getitem__(self, k: Any) -> Any:
        return self.net.primal(self.phis[k], *self.sets[k])


def query_pass(net: Net, phi: Array, batch: Batch) -> Any:
    """Loss g(phi), accuracy and gradient on the query sets, at phi (1 or T, P)."""
    primal = net.primal(phi, batch.x_query, batch.y_query, keep=False)
    net.require_finite(primal, phi, batch.x_query, "query set")
    return primal


class Adjoint(NamedTuple):
    """What the adjoint recursion returns.

    lam    lam_0 .. lam_K, or lam_0 alone
    hvp    -H_f(phi_k) gam_k for each k, or none; gam_k = -A_k lam_{k+1} without a rule
    rates  for each k, the function `of_rates` of dM/dA_k
    """

    lam: list
    hvp: list
    rates: list


def adjoint(
    net: Net, loop: Any, path: Descent, rates: list[Array], lam: Array,
    injected: list | None = None, of_rates: Callable[[Array], Array] | None = None,
    keep: bool = False,
) -> Adjoint:  # fmt: skip
    """lam_K = lam down to lam_0, along the path of `descend`.

    injected   injected[k], where given, is added to lam_k: a loss's gradient at phi_k
    of_rates   a function of dM/dA_k (T, P) whose values are collected; None: nothing is
    keep       keep lam_1 .. lam_K and the products too
    """
    rule, anchor, start = loop.rule, loop.anchor, path.phis[0]
    lams: list[Array] = [lam]
    products: list[Array] = []
    rate_gradients: list[Array] = []
    sig, pull = {}, 0  # type: dict, Any
    minus_one = net.kernels.constant(lam.shape[1:], -1, lam.dtype)
    for k in range(len(rates) - 1, -1, -1):
        primal, phi = path.passes[k], path.phis[k]
        g = loop.inner_gradient(net, primal.grad, phi, start)
        at = phi, g, path.states[k], rule.factors(k + 1)
        if of_rates is not None:
            rate_gradients.append(of_rates(-rule.direction(net, *at)[0] * lam))
        gam, sig, dphi = rule.pullback(net, scaled(net, -rates[k], lam), sig, *at)
        gam = loop.on_adapting(net, gam)
        product = net.hvp(primal, gam)
        del primal  # a recomputed pass leaves memory before the next one is computed
        lam = step(net, lam, minus_one, product)
        lam = lam if rule.plain else lam + dphi
        if anchor:
            lam, pull = lam + anchor * gam, pull - anchor * gam
        if injected is not None and injected[k] is not None:
            lam = lam + injected[k]
        lams, products = ([*lams, lam], [*products, -product]) if keep else ([lam], [])
    lams[-1] = lams[-1] + pull if anchor else lams[-1]
    return Adjoint(lams[::-1], products[::-1], rate_gradients[::-1])


def collect_trace(trace: bool, path: Descent, back: Adjoint) -> dict[str, list]:
    """With trace: phi_k, grad f(phi_k), lam_k and H_f(phi_k) (A_k lam_{k+1})."""
    if not trace:
        return {}
    inner_grad = [primal.grad for primal in path.passes]
    return {"phi": path.phis, "inner_grad": inner_grad, "lam": back.lam, "hvp": back.hvp}
