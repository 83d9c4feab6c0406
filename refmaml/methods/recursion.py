"""The two recursions of the family: the inner loop forward, the adjoint backward.

    phi_{k+1} = phi_k - A_k * grad f(phi_k)                      k = 0 .. K-1        (A_k: a vector of step sizes)
    lam_K     = grad g(phi_K)
    lam_k     = lam_{k+1} - H_f(phi_k) (A_k * lam_{k+1})         k = K-1 .. 0
    dM/dphi_0 = lam_0         dM/dA_k = -grad f(phi_k) * lam_{k+1}

The adjoint is the chain rule read from the end: d phi_{k+1} / d phi_k = I - diag(A_k) H_f(phi_k), and H_f is symmetric.
Sources: Finn et al. 2017 (MAML), eq. 1; Rajeswaran et al. 2019, section 2.1; the recursion with Hessian-vector products: MixFlow-MG,
Kemaev et al. 2025.
"""
from typing import NamedTuple

import numpy as np


def step_sizes(net, inner_lr, adapts, frozen, dtype):
    """A (P,): inner_lr on the parameters that `adapts` selects and `frozen` does not, 0 elsewhere."""
    chosen = net.mask(adapts)
    if frozen:
        chosen &= ~net.mask(frozen)
    return np.where(chosen, inner_lr, 0).astype(dtype)


def descend(net, phi, rates, x, y, keep=True):
    """The inner loop from phi (1 or T, P): all of phi_0 .. phi_K, and the primal pass at each of phi_0 .. phi_{K-1}.

    keep=False drops from those passes what only Hessian-vector products would need.
    """
    primals, phis = [], [phi]
    for k, A in enumerate(rates):
        primals.append(net.primal(phi, x, y, keep))
        net.require_finite(primals[-1], phi, x, f"support set, inner step {k}")
        phi = phi - A * primals[-1].grad
        phis.append(phi)
    return phis, primals


def query(net, phi, batch, keep=False):
    """The primal pass on the query set at phi: loss g(phi), and its gradient."""
    primal = net.primal(phi, batch.x_query, batch.y_query, keep=keep)
    net.require_finite(primal, phi, batch.x_query, "query set")
    return primal


class Adjoint(NamedTuple):
    """What the adjoint recursion leaves: lam_0 .. lam_K, the product H_f(phi_k) (A_k lam_{k+1}) and dM/dA_k for each k."""
    lam: list
    hvp: list
    rates: list


def adjoint(net, primals, rates, lam, injected=None):
    """lam_K = lam down to lam_0; `injected[k]`, where given, is added to lam_k: the gradient of a loss at phi_k itself."""
    lams, products, rate_gradients = [lam], [], []
    for k in range(len(primals) - 1, -1, -1):
        rate_gradients.append(-primals[k].grad * lam)
        products.append(net.hvp(primals[k], rates[k] * lam))
        lam = lam - products[-1]
        if injected is not None and injected[k] is not None:
            lam = lam + injected[k]
        lams.append(lam)
    return Adjoint(lams[::-1], products[::-1], rate_gradients[::-1])


def traced(trace, phis, support, back):
    """What trace=True keeps of the two recursions: phi_k, grad f(phi_k), lam_k and H_f(phi_k) (A_k lam_{k+1}); else nothing."""
    if not trace:
        return {}
    return {"phi": phis, "inner_grad": [primal.grad for primal in support], "lam": back.lam, "hvp": back.hvp}
