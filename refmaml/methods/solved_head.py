"""A head solved in closed form on each support set; the body is meta-learned.

The net is a body of layers and a linear layer at its end. A head (ridge_head.py, ...)
computes that layer's weights and bias from the support set's features:

    X = body(theta; x_support)          (w, b) = head(X, Y; eta)
    phi = (theta of the body, w, b)     M(theta, eta) = g(phi)

Nothing is iterated over, so theta's own entries for the last layer are not used. The
chain rule goes through phi and through X, and both parts meet in the body:

    (dbody, dw, db) = grad g(phi)       (dX, deta) = head's adjoint of (dw, db)
    dM/dtheta = dbody + (d body / d theta)' dX          dM/deta = deta

R{.} of these lines, along v = (rtheta, reta), is the Hessian of M times v: a tangent
pass of body and head, a Hessian-vector product of g, a tangent of both adjoints.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.adapt import adapt
from refmaml.methods.features import Features, body_of
from refmaml.methods.inner_loop_adjoint import query_pass
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.meta_hessian import hvp
from refmaml.methods.scaled_head import ScaledHead
from refmaml.nonfinite import refuse_non_finite


class Adapted(NamedTuple):
    """phi (T, P), and what adaptation leaves for the adjoint.

    support  the body's pass on the support sets
    solved   what the head's forward pass saved
    """

    phi: Array
    support: Features
    solved: Any


def targets(net: Any, X: Array, y: Array) -> Array:
    """Y (T, N, C) in the precision of X: the targets, or labels as unit vectors."""
    if y.dtype.kind not in "iu":
        return y.astype(X.real.dtype, copy=False)
    classes = net.kernels.xp.arange(net.layers[-1].out_features)
    return (y[..., None] == classes).astype(X.real.dtype)


@dataclass(frozen=True)
class SolvedHead:
    """phi = (theta's body, the head's solution), M = g(phi); see the module.

    head    how the last layer's weights follow from the support set: RidgeHead(...),
            LogisticHead(...), or another ScaledHead with the same four passes
    Works with every body that ends in vectors, and every loss on the query set.
    Meta-parameters (P + H,): [theta, eta]; theta's entries for the last layer are not
    used, and their derivatives are 0. Without a bias in the last layer, eta's bias has
    no effect. report: what the head says of its solve.
    Raises ArgumentError, NonFiniteError.
    Source: Bertinetto, Henriques, Torr, Vedaldi 2019, section 3.2.
    """

    head: Any
    data_independent = True  # which operations run depends on shapes alone
    meta_gradient = meta_gradient
    adapt = adapt
    hvp = hvp

    def __post_init__(self) -> None:
        known = isinstance(self.head, ScaledHead)
        expect(known, "head", "a head, such as RidgeHead()", lambda: repr(self.head))

    def init(self, net: Any, theta: Array) -> Array:
        """[theta, eta] (P + H,)."""
        body_of(net)

        def work(net: Any, theta: Array) -> tuple[list, dict]:
            numbers = self.head.start()
            eta = [net.kernels.xp.full(1, number, theta.dtype) for number in numbers]
            return [net.kernels.concatenate([theta, *eta])], {}

        return net.run(work, theta)[0][0]

    # ---- adaptation ------------------------------------------------------------------

    def solve(self, net: Any, body: Any, meta: Array, x: Array, y: Array) -> Adapted:
        """phi (T, P) of the support sets x (T, N, ...), y (T, N, ...)."""
        net.check(meta[None, : net.num_params], x, y)
        k, theta, eta = net.kernels, meta[: body.num_params], meta[net.num_params :]
        labels = y.dtype.kind in "iu"
        wanted = f"labels, for {type(self.head).__name__}"
        expect(labels or not self.head.of_labels, "y", wanted, lambda: f"dtype {y.dtype}")
        room = net.layers[-1].bias or not self.head.intercept
        expect(room, "net", "a bias in its last layer, for the intercept", "none")
        support = Features.of(body, theta[None], x)
        Y = targets(net, support.X, y)
        weight, bias, solved = self.head.forward(k, support.X, Y, eta)
        phi = joined(net, theta[None], weight, bias)
        net.require(k.xp.isfinite(phi).all(), lambda: refuse_solution(net, meta, x, phi))
        return Adapted(phi, support, solved)

    def adapted(self, net: Any, meta: Array, x: Array, y: Array) -> Array:
        """phi (T, P)."""
        return self.solve(net, body_of(net), meta, x, y).phi

    # ---- the meta-gradient -----------------------------------------------------------

    def task_gradients(self, net: Any, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """[dM_t/dtheta, dM_t/deta] of each task, (T, P + H)."""
        k, body = net.kernels, body_of(net)
        here = self.solve(net, body, meta, batch.x_support, batch.y_support)
        query = query_pass(net, here.phi, batch)
        dX, deta, _ = self.head.backward(k, here.solved, *of_head(net, query.grad))
        dbody, _ = here.support.pullback(dX)
        dtheta = query.grad[:, : body.num_params] + dbody
        kept = {"phi": [meta[None, : net.num_params], here.phi], "query_grad": [query.grad]}
        report = self.head.report(k, here.solved)
        gradient = k.concatenate([without_head(net, dtheta), deta], axis=1)
        return TaskGradients(query.loss, query.accuracy, gradient, kept if trace else {}, report)

    # ---- its derivative along a direction: see meta_hessian.py -----------------------

    def task_products(self, net: Any, meta: Array, batch: Batch, v: Array) -> Array:
        """H_t v of each task, (T, P + H)."""
        k, body, T, P = net.kernels, body_of(net), len(batch), net.num_params
        here = self.solve(net, body, meta, batch.x_support, batch.y_support)
        query = net.primal(here.phi, batch.x_query, batch.y_query)
        dw, db = of_head(net, query.grad)
        dX, _, adjoints = self.head.backward(k, here.solved, dw, db)
        _, support = here.support.pullback(dX)

        rbody, reta = v[None, : body.num_params], v[P:]
        rX, rsaved = body.r_forward(support, rbody)
        rw, rb, tangents = self.head.r_forward(k, here.solved, rX, reta)
        rgrad = net.hvp(query, joined(net, rbody, rw, rb))
        rdX, rdeta = self.head.r_backward(k, here.solved, adjoints, tangents, *of_head(net, rgrad))
        product = body.r_backward(support, rbody, rsaved, rdX)
        rdtheta = rgrad[:, : body.num_params] + product
        return k.concatenate([without_head(net, rdtheta), rdeta], axis=1).reshape(T, -1)


# ---- the flat vector: the body's parameters, then the head's weight and bias ---------


def joined(net: Any, theta: Array, weight: Array, bias: Array) -> Array:
    """(T, P) of the body's theta (1, .), the head's weight (T, C, F), bias (T, C)."""
    T = len(weight)
    rows = net.kernels.xp.broadcast_to(theta, (T, theta.shape[1]))
    parts = [rows, weight.reshape(T, -1)] + ([bias] if net.layers[-1].bias else [])
    return net.kernels.concatenate(parts, axis=1)


def of_head(net: Any, rows: Array) -> tuple[Array, Array]:
    """weight (T, C, F) and bias (T, C), in memory of their own, of rows (T, P).

    Zeros stand for the bias of a layer without one.
    """
    last, xp, T = net.parameters.views(rows)[-1], net.kernels.xp, len(rows)
    weight, none = last["weight"], xp.zeros((T, len(last["weight"][0])), rows.dtype)
    return xp.ascontiguousarray(weight), last.get("bias", none)


def without_head(net: Any, body: Array) -> Array:
    """(T, P) of the body's part, with 0 for the head."""
    head = net.num_params - body.shape[1]
    zeros = net.kernels.xp.zeros((len(body), head), body.dtype)
    return net.kernels.concatenate([body, zeros], axis=1)


def refuse_solution(net: Any, meta: Array, x: Array, phi: Array) -> NoReturn:
    """Raise NonFiniteError, naming what is not finite first: layer or solution."""
    to_host, stage, P = net.kernels.to_host, "support set", net.num_params
    refuse_non_finite(to_host(meta)[None], f"{stage}: the meta-parameters")
    refuse_non_finite(to_host(x), f"{stage}: the inputs")
    with np.errstate(all="ignore"):
        *body, _ = net.layer_outputs(meta[None, :P], x)
    for name, layer, y in body:
        place = f"layer {name} ({type(layer).__name__})"
        refuse_non_finite(to_host(y), f"{stage}: the outputs of {place}")
    advice = "the head's solution (a larger strength of its ridge may help)"
    refuse_non_finite(to_host(phi), f"{stage}: {advice}")
    raise AssertionError("nothing is non-finite")
