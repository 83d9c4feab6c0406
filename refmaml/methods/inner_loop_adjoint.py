"""The two recursions of the family: the inner loop forward, its adjoint backward.

    phi_{k+1} = phi_k - A_k * grad f(phi_k)                      k = 0 .. K-1
    lam_K     = grad g(phi_K)
    lam_k     = lam_{k+1} - H_f(phi_k) (A_k * lam_{k+1})         k = K-1 .. 0
    dM/dphi_0 = lam_0         dM/dA_k = -grad f(phi_k) * lam_{k+1}

A_k is a vector of step sizes. The adjoint is the chain rule read from the end:
d phi_{k+1} / d phi_k = I - diag(A_k) H_f(phi_k), and H_f is symmetric.
It needs the passes of the inner loop in the opposite order: they are stored, or
computed again one by one.
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


def descend(
    net: Net, phi: Array, rates: list[Array], x: Array, y: Array, keep: str = "passes"
) -> tuple[list[Array], Sequence]:
    """The inner loop from phi (1 or T, P): phi_0 .. phi_K, and the passes before phi_K.

    rates  [A_0, ..., A_{K-1}], each (P,)
    keep   what stays in memory, and so how memory grows with K:
           "passes"   the passes with their activations
           "phis"     the vectors phi_k; a pass is computed again when it is read
           "last"     phi_K alone, and no passes: memory does not grow with K
    """
    phis, primals = [phi], []
    for k, A in enumerate(rates):
        primal = net.primal(phi, x, y, keep == "passes")
        net.require_finite(primal, phi, x, f"support set, inner step {k}")
        phi = step(net, phi, A, primal.grad)
        phis = [phi] if keep == "last" else [*phis, phi]
        primals += [primal] if keep == "passes" else []
    return phis, Recomputed(net, phis[:-1], x, y) if keep == "phis" else primals


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

    def __init__(self, net: Net, phis: list[Array], x: Array, y: Array) -> None:
        self.net, self.phis, self.x, self.y = net, phis, x, y

    def __len__(self) -> int:
        return len(self.phis)

    def __getitem__(self, k: Any) -> Any:
        return self.net.primal(self.phis[k], self.x, self.y)


def query_pass(net: Net, phi: Array, batch: Batch) -> Any:
    """Loss g(phi), accuracy and gradient on the query sets, at phi (1 or T, P)."""
    primal = net.primal(phi, batch.x_query, batch.y_query, keep=False)
    net.require_finite(primal, phi, batch.x_query, "query set")
    return primal


class Adjoint(NamedTuple):
    """What the adjoint recursion returns.

    lam    lam_0 .. lam_K, or lam_0 alone
    hvp    the product H_f(phi_k) (A_k lam_{k+1}) for each k, or none
    rates  for each k, the function `of_rates` of dM/dA_k
    """

    lam: list
    hvp: list
    rates: list


def adjoint(
    net: Net, primals: Sequence, rates: list[Array], lam: Array, injected: list | None = None,
    of_rates: Callable[[Array], Array] | None = None, keep: bool = False,
) -> Adjoint:  # fmt: skip
    """lam_K = lam down to lam_0.

    injected   injected[k], where given, is added to lam_k: a loss's gradient at phi_k
    of_rates   a function of dM/dA_k (T, P) whose values are collected; None: nothing is
    keep       keep lam_1 .. lam_K and the products too
    """
    lams: list[Array] = [lam]
    products: list[Array] = []
    rate_gradients: list[Array] = []
    one = net.kernels.constant(lam.shape[1:], 1, lam.dtype)
    for k in range(len(primals) - 1, -1, -1):
        primal = primals[k]
        if of_rates is not None:
            rate_gradients.append(of_rates(-primal.grad * lam))
        product = net.hvp(primal, scaled(net, rates[k], lam))
        del primal  # a recomputed pass leaves memory before the next one is computed
        lam = step(net, lam, one, product)
        if injected is not None and injected[k] is not None:
            lam = lam + injected[k]
        lams, products = ([*lams, lam], [*products, product]) if keep else ([lam], [])
    return Adjoint(lams[::-1], products[::-1], rate_gradients[::-1])


def collect_trace(
    trace: bool, phis: list[Array], support: Sequence, back: Adjoint
) -> dict[str, list]:
    """With trace: phi_k, grad f(phi_k), lam_k and H_f(phi_k) (A_k lam_{k+1})."""
    if not trace:
        return {}
    inner_grad = [primal.grad for primal in support]
    return {"phi": phis, "inner_grad": inner_grad, "lam": back.lam, "hvp": back.hvp}
