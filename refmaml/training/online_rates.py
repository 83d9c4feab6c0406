"""Step sizes that are learned while training runs: AlphaMAML.

    alpha, the inner step size, follows dM/dalpha = sum_k -<grad f(phi_k), lam_{k+1}>
    beta, the outer one, follows the derivative of the loss after the last update:
    M(theta_t) = M(theta_{t-1} - beta G_{t-1}), so dM/dbeta = -<G_t, G_{t-1}>

The first is MAML's exact hypergradient. The second compares two meta-gradients of
different batches, as hypergradient descent does: its expectation is the derivative.
Sources: Behl, Baydin, Torr 2019 (Alpha MAML), Algorithm 1; Baydin et al. 2018.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from refmaml.arguments import check_not_negative
from refmaml.methods.fields import check_positive


@dataclass(frozen=True)
class Rates:
    """theta and both step sizes, before or after an update.

    theta  (P,)
    alpha  the inner step size; beta: the outer one, both > 0
    grad   the meta-gradient of the last update (P,); None before the first
    Raises ArgumentError unless alpha and beta are finite numbers > 0.
    """

    theta: Any
    alpha: float
    beta: float
    grad: Any = None

    def __post_init__(self):
        check_positive(alpha=self.alpha, beta=self.beta)


class Update(NamedTuple):
    """The Rates after an update; the loss before it, dM/dalpha and dM/dbeta."""

    rates: Rates
    loss: float
    dalpha: float
    dbeta: float


def update_rates(net, method, rates, batch, *, alpha_lr, beta_lr):
    """The Update of one meta-step: beta, then theta along the new beta, and alpha.

    method   MAML or another method with one `inner_lr` whose hypergradients are known;
             its inner_lr is replaced by alpha
    alpha_lr, beta_lr   step sizes >= 0 of the two hypergradients; 0: that one stays
    A step that would make a rate negative or 0 leaves half of it.
    Raises ArgumentError, NonFiniteError.
    """
    check_not_negative(alpha_lr=alpha_lr, beta_lr=beta_lr)
    method = replace(method, inner_lr=rates.alpha)
    out = method.meta_gradient(net, rates.theta, batch, hyper=True)
    dalpha = float(out.hyper["inner_lr"])
    dbeta = 0.0 if rates.grad is None else -float(np.vdot(out.grad, rates.grad))
    alpha = max(rates.alpha - alpha_lr * dalpha, rates.alpha / 2)
    beta = max(rates.beta - beta_lr * dbeta, rates.beta / 2)
    theta = rates.theta - beta * out.grad
    return Update(Rates(theta, alpha, beta, out.grad), float(out.loss), dalpha, dbeta)
