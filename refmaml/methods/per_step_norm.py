"""MAML++ with batch-norm weights and biases of their own for each inner step.

Let b_k be the parameters of the batch-norm layers at step k, meta-learned, not adapted;
[phi, b] is phi with b in the place of these parameters. From phi_0 = theta,

    phi_{k+1} = phi_k - A_k * grad f([phi_k, b_k])       A_k = 0 on batch-norm
    M = sum_{k=1..K} v_k g([phi_k, b_{k-1}])

The query loss after step k passes with the parameters of that step, as in the authors'
code. Each pass takes the statistics of its own batch, so that the statistics are those
of the step as well. With lam_{K+1} = 0, all vectors of all parameters,

    lam_k = lam_{k+1} + v_k grad g([phi_k, b_{k-1}])     at phi_k, k = K .. 1
    lam_k <- lam_k - H_f([phi_k, b_k]) (A_k lam_{k+1})   through step k

b_k's share of a vector is that on the batch-norm parameters. No step hands it on to the
step before, since b_{k-1} is another array:

    dM/db_k = (v_{k+1} grad g - H_f([phi_k, b_k]) (A_k lam_{k+1})) on batch-norm

that is, what the query loss gives directly, and minus the (gamma, beta) block of the
product that the adjoint of step k has computed already.
Source: Antoniou, Edwards, Storkey 2019, section 4 (BNRS, BNWB).
"""

from typing import NamedTuple

from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods.inner_loop_adjoint import query_pass, scaled, step
from refmaml.model import Net
from refmaml.primal import Primal


class PerStep(NamedTuple):
    """The result for some tasks.

    loss, accuracy  M and the accuracy after the last step, (T,)
    theta           dM/dtheta (T, P), 0 on batch-norm
    norms           dM/db_k (T, B) of each step
    rates           dM/dA_k (T, P) of each step
    phi             phi_K (T, P), with b_{K-1}
    """

    loss: Array
    accuracy: Array | None
    theta: Array
    norms: list
    rates: list
    phi: Array


def norm_places(net: Net) -> Array:
    """(P,) of bools: the parameters of the batch-norm layers."""
    return net.mask(("BatchNorm2d",))


def with_norm(net: Net, phi: Array, places: Array, b: Array) -> Array:
    """[phi, b]: phi (T, P) with b (B,) in the place of the batch-norm parameters."""
    phi = phi.copy()
    phi[:, places] = b
    return phi


def descend(net: Net, phi: Array, rates: list, norms: Array, x: Array, y: Array) -> tuple:
    """(the [phi_k, b_k], the passes there, [phi_K, b_{K-1}]), k < K; norms (K, B)."""
    places = norm_places(net)
    phis: list[Array] = []
    passes: list[Primal] = []
    for k, (A, b) in enumerate(zip(rates, norms, strict=True)):
        phi = with_norm(net, phi, places, b)
        primal = net.primal(phi, x, y)
        net.require_finite(primal, phi, x, f"support set, inner step {k}")
        phis, passes = [*phis, phi], [*passes, primal]
        phi = step(net, phi, A, primal.grad)
    return phis, passes, phi


def per_step_gradients(
    net: Net, start: Array, rates: list, norms: Array, weights: tuple, batch: Batch
) -> PerStep:
    """The PerStep of all tasks; start (1, P), norms (K, B), weights v_1 .. v_K."""
    places, K = norm_places(net), len(rates)
    phis, passes, last = descend(net, start, rates, norms, *batch.sets[0])
    after = [with_norm(net, phis[k + 1], places, norms[k]) for k in range(K - 1)] + [last]
    queries = [query_pass(net, phi, batch) for phi in after]
    lam = 0 * queries[0].grad
    norm_gradients: list[Array] = []
    rate_gradients: list[Array] = []
    one = net.kernels.constant(lam.shape[1:], 1, lam.dtype)
    for k in range(K - 1, -1, -1):
        lam = lam + weights[k] * queries[k].grad
        direct = lam[:, places]
        lam[:, places] = 0
        rate_gradients.insert(0, -passes[k].grad * lam)
        product = net.hvp(passes[k], scaled(net, rates[k], lam))
        lam = step(net, lam, one, product)
        norm_gradients.insert(0, direct + lam[:, places])
        lam[:, places] = 0
    loss = sum(v * query.loss for v, query in zip(weights, queries, strict=True))
    return PerStep(loss, queries[-1].accuracy, lam, norm_gradients, rate_gradients, last)
