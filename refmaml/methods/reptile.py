"""Reptile: move to the end of a few ordinary training steps; no second derivatives."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from refmaml.arguments import is_number
from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.fields import check_positive
from refmaml.methods.inner_loop import InnerLoop
from refmaml.methods.inner_loop_adjoint import descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.model import Net

MOMENTS = ("fresh", "carried")


@dataclass(frozen=True)
class Reptile(InnerLoop):
    """ "dM/dtheta" = theta - phi_K, phi_K after K steps of SGD or Adam on mini-batches.

    theta <- theta - epsilon mean_t (theta - phi_K) is the paper's
    theta <- theta + epsilon mean_t (phi_K - theta).

    inner_lr (alpha), inner_steps (K), adapts, frozen, rule, anchor, inner_batch,
    order_seed: see InnerLoop
    optimizer     "sgd", or "adam" with beta1 = 0 as in the paper:
                  v <- beta2 v + (1 - beta2) g^2,  n <- beta2 n + (1 - beta2),
                  phi <- phi - alpha g / (sqrt(v / n) + eps);
                  from n = 0 on, n is Adam's usual 1 - beta2^k
    moment        where v and n start in a task: "fresh" at 0, or "carried" from the
                  tasks before, as in the authors' code. They are then meta-parameters,
                  meta = (theta, v, n), moved like theta towards their mean over tasks,
                  by an outer SGD with lr <= 1. (The authors run tasks one after another
                  and hand v on; here the tasks of a meta-step all start from one v.)
    beta2, eps    of Adam
    Raises ArgumentError, NonFiniteError.
    Source: Nichol, Achiam, Schulman 2018, Algorithms 1 and 2, section 6.2 for Adam.
    """

    inner_steps: int = 5
    optimizer: str = "sgd"
    moment: str = "fresh"
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(eps=self.eps)
        optimizer, moment, beta2 = self.optimizer, self.moment, self.beta2
        expect(optimizer in ("sgd", "adam"), "optimizer", "'sgd' or 'adam'", repr(optimizer))
        expect(moment in MOMENTS, "moment", f"one of {', '.join(MOMENTS)}", repr(moment))
        known, wanted = moment == "fresh" or optimizer == "adam", "'fresh' beside optimizer='sgd'"
        expect(known, "moment", wanted, repr(moment))
        alone = optimizer == "sgd" or (self.rule.plain and self.anchor == 0)
        expect(alone, "rule", "no rule and no anchor beside optimizer='adam'", repr(self.rule))
        expect(is_number(beta2) and 0 <= beta2 < 1, "beta2", "a number in [0, 1)", repr(beta2))

    def init(self, net: Net, theta: Array) -> Array:
        """The meta-parameters: theta (P,), or (theta, v, n) (2P + 1,) if carried."""
        if self.moment == "fresh":
            return theta

        def work(net: Net, theta: Array) -> tuple[list, dict]:
            return [net.kernels.concatenate([theta, 0 * theta, 0 * theta[:1]])], {}

        return net.run(work, theta)[0][0]

    def descend(
        self, net: Net, meta: Array, x: Array, y: Array, trace: bool = False
    ) -> tuple[list[Array], Array, Any]:
        """phi_0 .. phi_K (1 or T, P), without trace phi_K; v (T, P); n (1, 1)."""
        P, carried = net.num_params, self.moment == "carried"
        phi, rates = self.start(net, meta[:P])
        v, n = (meta[None, P : 2 * P], meta[None, 2 * P :]) if carried else (0 * phi, 0)
        if self.optimizer == "sgd":
            path = descend(net, self, phi, rates, x, y, "phis" if trace else "last")
            return path.phis if trace else path.phis[-1:], v, n
        phis = [phi]
        for k, (A, (x_k, y_k)) in enumerate(zip(rates, self.support_sets(net, x, y), strict=True)):
            primal = net.primal(phis[-1], x_k, y_k, keep=False)
            net.require_finite(primal, phis[-1], x_k, f"support set, inner step {k}")
            n = self.beta2 * n + (1 - self.beta2) if carried else 1 - self.beta2 ** (k + 1)
            phi, v = self.adam_step(net, phis[-1], A, primal.grad, v, n)
            phis = [*(phis if trace else []), phi]
        return phis, v, n

    def adam_step(
        self, net: Net, phi: Array, A: Array, g: Array, v: Array, n: Any
    ) -> tuple[Array, Array]:
        """The next phi and v, (T, P) each."""
        k = net.kernels
        kind = np.result_type(phi.dtype, A.dtype, g.dtype, v.dtype)
        after, moment = k.empty(g.shape, kind), k.empty(g.shape, kind)
        n = n if self.moment == "carried" else k.xp.full((1, 1), n, v.dtype)
        k.vector_adam_step(after, moment, phi, A[None], g, v, n, self.beta2, self.eps)
        return after, moment

    def adapted(self, net: Net, meta: Array, x: Array, y: Array) -> Array:
        """phi_K (T, P)."""
        return self.descend(net, meta, x, y)[0][-1]

    def task_gradients(self, net: Net, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """meta minus where each task ends, (T, M); query loss and accuracy."""
        phis, v, n = self.descend(net, meta, batch.x_support, batch.y_support, trace)
        query, end = query_pass(net, phis[-1], batch), phis[-1]
        if self.moment == "carried":
            n = net.kernels.xp.broadcast_to(n, (len(v), 1))
            end = net.kernels.concatenate([end, v, n], axis=1)
        kept = {"phi": phis} if trace else {}
        return TaskGradients(query.loss, query.accuracy, meta - end, kept)
