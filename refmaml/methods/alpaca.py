"""ALPaCA: Bayesian linear regression on meta-learned features, with its prior.

A task's adapted net predicts the posterior mean. The meta-objective is the likelihood
of the query targets under the posterior, so the variance counts too:

    X = body(theta; x_support),  Q = body(theta; x_query)
    M = mean over queries of -log N(y; q W', v s)           (bayesian_regression.py)

The prior's mean W0 is theta's last layer. Its precision L L' and the noise v = e^ell
are meta-parameters too. A bias of the last layer is the weight of one more feature,
which is 1.
"""

from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np

from refmaml.arguments import check_positive_number, set_fields
from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods import bayesian_regression
from refmaml.methods.adapt import adapt
from refmaml.methods.bayesian_regression import Prior
from refmaml.methods.features import Features, body_of
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.meta_hessian import hvp
from refmaml.methods.solved_head import joined, refuse_solution, targets
from refmaml.methods.symmetric_solves import identity, times_transposed
from refmaml.nonfinite import refuse_non_finite


@dataclass(frozen=True)
class ALPaCA:
    """M = mean over queries of -log p(y | q, support set); phi: the posterior's mean.

    precision  lambda > 0: the prior's precision L L' starts as lambda I
    noise      v > 0: the variance of the targets at the start
    Meta-parameters (P + G^2 + 1,): [theta, L (G, G), ell = log v], G the last layer's
    inputs, and one more where it has a bias. Targets are real numbers; labels are unit
    vectors, as if these were numbers with Gaussian noise. The net's own loss is not
    used, except where held-out tasks are judged.
    Raises ArgumentError, NonFiniteError.
    Source: Harrison, Sharma, Pavone 2018, section 3: the posterior, its predictive
    likelihood as the loss, the prior learned with the features.
    """

    precision: float = 1.0
    noise: float = 0.02
    data_independent = True  # which operations run depends on shapes alone
    meta_gradient = meta_gradient
    adapt = adapt
    hvp = hvp

    def __post_init__(self) -> None:
        set_fields(
            self,
            precision=check_positive_number("precision", self.precision),
            noise=check_positive_number("noise", self.noise),
        )

    # ---- meta-parameters -------------------------------------------------------------

    def init(self, net: Any, theta: Array) -> Array:
        """[theta, L, ell]."""
        body_of(net)
        G = self.features(net)

        def work(net: Any, theta: Array) -> tuple[list, dict]:
            L = sqrt(self.precision) * identity(net.kernels, G, theta.dtype)
            ell = net.kernels.xp.full(1, log(self.noise), theta.dtype)
            return [net.kernels.concatenate([theta, L.reshape(-1), ell])], {}

        return net.run(work, theta)[0][0]

    def features(self, net: Any) -> int:
        """G: the inputs of the last layer, and one more where it has a bias."""
        return net.layers[-1].in_features + net.layers[-1].bias

    def prior(self, net: Any, meta: Array, T: int) -> Prior:
        """W0 (T, C, G) and L (T, G, G), the same for T tasks, and ell."""
        P, G, xp = net.num_params, self.features(net), net.kernels.xp
        last = net.parameters.views(meta[None, :P])[-1]
        W0, L = last["weight"], meta[P:-1].reshape(1, G, G)
        if "bias" in last:
            W0 = net.kernels.concatenate([W0, last["bias"][..., None]], axis=2)
        W0, L = (xp.ascontiguousarray(xp.broadcast_to(a, (T, *a.shape[1:]))) for a in (W0, L))
        return Prior(W0, L, meta[-1])

    def extended(self, net: Any, X: Array, constant: float = 1) -> Array:
        """X with the bias's feature: 1, or 0 for a tangent; X itself without a bias."""
        if not net.layers[-1].bias:
            return X
        column = net.kernels.xp.full((*X.shape[:2], 1), constant, X.dtype)
        return net.kernels.concatenate([X, column], axis=2)

    def without(self, net: Any, dX: Array) -> Array:
        """The adjoint of `extended`."""
        bias = net.layers[-1].bias
        return net.kernels.xp.ascontiguousarray(dX[..., :-1]) if bias else dX

    def parts(self, net: Any, W: Array) -> tuple[Array, Array]:
        """weight and bias of W (T, C, G); the bias is not used where there is none."""
        return (W[..., :-1], W[..., -1]) if net.layers[-1].bias else (W, W[..., 0])

    # ---- adaptation ------------------------------------------------------------------

    def adapted(self, net: Any, meta: Array, x: Array, y: Array) -> Array:
        """phi (T, P) with the posterior's mean in the last layer."""
        body, theta = body_of(net), meta[None, : net.num_params]
        net.check(theta, x, y)
        X, _ = body.forward(body.parameters.views(theta[:, : body.num_params]), x, keep=False)
        Y, prior = targets(net, X, y), self.prior(net, meta, len(x))
        W, *_ = bayesian_regression.posterior_mean(net.kernels, self.extended(net, X), Y, prior)
        phi = joined(net, theta[:, : body.num_params], *self.parts(net, W))
        ok = net.kernels.xp.isfinite(phi).all()
        net.require(ok, lambda: refuse_solution(net, meta, x, phi))
        return phi

    # ---- the meta-gradient -----------------------------------------------------------

    def both(self, net: Any, body: Any, meta: Array, batch: Batch) -> list[Features]:
        """The body's pass on the support sets and that on the query sets."""
        theta = meta[None, : net.num_params]
        for x, y in batch.sets:
            net.check(theta, x, y)
        return [Features.of(body, theta[:, : body.num_params], x) for x, _ in batch.sets]

    def likelihood(self, net: Any, sets: list[Features], meta: Array, batch: Batch) -> Any:
        """bayesian_regression.forward on the features of both sets."""
        X, Q = (self.extended(net, part.X) for part in sets)
        prior = self.prior(net, meta, len(batch))
        y, yq = (targets(net, X, y) for y in (batch.y_support, batch.y_query))
        return bayesian_regression.forward(net.kernels, X, y, Q, yq, prior)

    def task_gradients(self, net: Any, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """[dM_t/dtheta, dM_t/dL, dM_t/dell] of each task, (T, P + G^2 + 1)."""
        k, body = net.kernels, body_of(net)
        support, query = sets = self.both(net, body, meta, batch)
        loss, here = self.likelihood(net, sets, meta, batch)
        phi = joined(net, meta[None, : body.num_params], *self.parts(net, here.W))
        ok = k.xp.isfinite(phi).all()
        net.require(ok, lambda: refuse_solution(net, meta, batch.x_support, phi))
        net.require(k.xp.isfinite(loss).all(), lambda: refuse_likelihood(k.to_host(loss)))
        dX, dQ, dprior, _ = bayesian_regression.backward(k, here)
        dbody, _ = support.pullback(self.without(net, dX))
        more, _ = query.pullback(self.without(net, dQ))
        kept = {"phi": [meta[None, : net.num_params], phi]} if trace else {}
        z = times_transposed(k, here.Q, here.W)
        accuracy = net.loss_function.accuracy(z, batch.y_query)
        return TaskGradients(loss, accuracy, self.rows(net, dbody + more, dprior), kept)

    def rows(self, net: Any, body: Array, prior: Prior) -> Array:
        """(T, P + G^2 + 1) of the body's part and the Prior of adjoints."""
        T, last = len(body), self.parts(net, prior.W0)
        theta = [body, last[0].reshape(T, -1), *([last[1]] if net.layers[-1].bias else [])]
        return net.kernels.concatenate([*theta, prior.L.reshape(T, -1), prior.ell[:, None]], axis=1)

    # ---- its derivative along a direction: see meta_hessian.py -----------------------

    def task_products(self, net: Any, meta: Array, batch: Batch, v: Array) -> Array:
        """H_t v of each task."""
        k, body = net.kernels, body_of(net)
        support, query = sets = self.both(net, body, meta, batch)
        _, here = self.likelihood(net, sets, meta, batch)
        dX, dQ, _, adjoints = bayesian_regression.backward(k, here)
        _, at_support = support.pullback(self.without(net, dX))
        _, at_query = query.pullback(self.without(net, dQ))

        rbody, rprior = v[None, : body.num_params], self.prior(net, v, len(batch))
        rX, saved = body.r_forward(at_support, rbody)
        rQ, saved_query = body.r_forward(at_query, rbody)
        rX, rQ = (self.extended(net, a, 0) for a in (rX, rQ))
        y = targets(net, here.X, batch.y_support)
        tangents = bayesian_regression.r_forward(k, here, y, rX, rQ, rprior)
        rdX, rdQ, rdprior = bayesian_regression.r_backward(k, here, adjoints, tangents)
        product = body.r_backward(at_support, rbody, saved, self.without(net, rdX))
        more = body.r_backward(at_query, rbody, saved_query, self.without(net, rdQ))
        return self.rows(net, product + more, rdprior)


def refuse_likelihood(loss: np.ndarray) -> None:
    """Raise NonFiniteError for the first task whose likelihood (T,) is not finite."""
    refuse_non_finite(loss, "query set: the predictive likelihood (a larger noise may help)")
