"""MAML++: learned step sizes of each layer and step, a query loss after each step."""

from dataclasses import dataclass

from refmaml.arguments import check_bool, is_number
from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods import per_step_norm
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.methods.per_step_norm import norm_places
from refmaml.model import Net


@dataclass(frozen=True)
class MAMLPlusPlus(DifferentiatedLoop):
    """phi_{k+1} = phi_k - alpha_{l,k} grad_l f(phi_k) in each layer l;
    M = sum_{k=1..K} v_k g(phi_k);
    lam_k = lam_{k+1} - H_f(phi_k) (A_k lam_{k+1}) + v_k grad g(phi_k);
    dM/dalpha_{l,k} = sum over layer l of -grad f(phi_k) lam_{k+1}.

    inner_lr      the start of every alpha_{l,k}, or a list with one for each k
    inner_steps (K), adapts, frozen, rule, anchor, inner_batch, recompute: see
                  inner_loop.py
    loss_weights  v_1 .. v_K; None: 1/K each, where the paper's annealing starts.
                  (0, ..., 0, 1) is where it ends: MAML's loss
    per_step_norm  batch-norm weights and biases of their own for each inner step, which
                  do not adapt (BNWB; per_step_norm.py); plain gradient descent only
    A "layer" is a named array, as in the authors' code.
    Meta-parameters (P + L K,): [theta, alpha_{1,0} .. alpha_{L,0}, alpha_{1,1} ..];
    with per_step_norm then b_1 .. b_{K-1}, while theta holds b_0.
    Batch-norm takes the statistics of each pass's own batch, as the authors' program
    does: running statistics of each step (BNRS) are stored there, but never used.
    Raises ArgumentError, NonFiniteError.
    Source: Antoniou, Edwards, Storkey 2019, section 4 (MSL, LSLR, BNWB).
    """

    inner_steps: int = 5
    loss_weights: tuple | None = None
    per_step_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        v = self.loss_weights
        expect(
            v is None or (len(v) == self.inner_steps and all(map(is_number, v))),
            "loss_weights",
            f"{self.inner_steps} finite numbers, one for each inner step",
            repr(v),
        )
        own = not check_bool("per_step_norm", self.per_step_norm)
        plain = self.rule.plain and not self.anchor and self.inner_batch is None
        wanted = "False beside a rule, an anchor or mini-batches"
        expect(own or plain, "per_step_norm", wanted, "True")

    def init(self, net: Net, theta: Array) -> Array:
        """[theta, alpha], alpha step by step."""

        def work(net: Net, theta: Array) -> tuple[list, dict]:
            layers, xp = len(net.blocks), net.kernels.xp
            alphas = [xp.full(layers, alpha, theta.dtype) for alpha in self.step_lengths]
            norm = theta[norm_places(net)] if self.per_step_norm else theta[:0]
            norms = [norm] * (self.inner_steps - 1)
            return [net.kernels.concatenate([theta, *alphas, *norms])], {}

        return net.run(work, theta)[0][0]

    def unpack(self, net: Net, meta: Array) -> tuple[Array, Array]:
        """(theta (P,), alpha (K, L)), two views; the same for a gradient."""
        P, count = net.num_params, self.inner_steps * len(net.blocks)
        return meta[:P], meta[P : P + count].reshape(self.inner_steps, -1)

    def norms(self, net: Net, meta: Array) -> Array:
        """b_0 .. b_{K-1} (K, B)."""
        first = meta[: net.num_params][norm_places(net)]
        others = meta[net.num_params + self.inner_steps * len(net.blocks) :]
        return net.kernels.concatenate([first, others]).reshape(self.inner_steps, -1)

    def start(self, net: Net, meta: Array) -> tuple[Array, list[Array]]:
        """theta (1, P), and for each step the alphas spread over the parameters."""
        theta, alpha = self.unpack(net, meta)
        mask = self.adapting(net, meta)
        mask = mask * ~norm_places(net) if self.per_step_norm else mask
        return theta[None], [mask * spread(net, row) for row in alpha]

    def adapted(self, net: Net, meta: Array, x: Array, y: Array) -> Array:
        """phi_K (T, P); with per_step_norm it holds b_{K-1}."""
        if not self.per_step_norm:
            return super().adapted(net, meta, x, y)
        phi, rates = self.start(net, meta)
        return per_step_norm.descend(net, phi, rates, self.norms(net, meta), x, y)[-1]

    def task_gradients(self, net: Net, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """[dM_t/dtheta, dM_t/dalpha] for each task, (T, P + L K).

        loss is M, accuracy that after the last step.
        """
        phi, rates = self.start(net, meta)
        v = self.loss_weights or (1 / self.inner_steps,) * self.inner_steps
        if self.per_step_norm:
            return self.per_step_gradients(net, meta, v, batch)
        mask, starts = self.adapting(net, meta), [part.start for part in net.blocks]
        path = descend(net, self, phi, rates, batch.x_support, batch.y_support, self.kept)
        query = [query_pass(net, phi, batch) for phi in path.phis[1:]]
        injected = [None, *(v_k * g.grad for v_k, g in zip(v[:-1], query[:-1], strict=True))]

        def layer_sums(dA: Array) -> Array:
            return net.kernels.sum_segments(mask * dA, starts)

        last = v[-1] * query[-1].grad
        back = adjoint(net, self, path, rates, last, injected, layer_sums, keep=trace)
        loss = sum(v_k * g.loss for v_k, g in zip(v, query, strict=True))
        gradient = net.kernels.concatenate([back.lam[0], *back.rates], axis=1)
        kept = collect_trace(trace, path, back)
        return TaskGradients(loss, query[-1].accuracy, gradient, kept)

    def per_step_gradients(self, net: Net, meta: Array, v: tuple, batch: Batch) -> TaskGradients:
        """The same, then dM_t/db_1 .. dM_t/db_{K-1}; it keeps no trace."""
        phi, rates = self.start(net, meta)
        found = per_step_norm.per_step_gradients(net, phi, rates, self.norms(net, meta), v, batch)
        mask, starts = self.adapting(net, meta), [part.start for part in net.blocks]
        alphas = [net.kernels.sum_segments(mask * dA, starts) for dA in found.rates]
        theta, places = found.theta.copy(), norm_places(net)
        theta[:, places] = found.norms[0]
        gradient = net.kernels.concatenate([theta, *alphas, *found.norms[1:]], axis=1)
        return TaskGradients(found.loss, found.accuracy, gradient)


def spread(net: Net, row: Array) -> Array:
    """A number for each layer, row (L,), repeated over the layer's parameters: (P,)."""
    parts = [
        net.kernels.xp.broadcast_to(row[l : l + 1], (part.stop - part.start,))
        for l, part in enumerate(net.blocks)
    ]
    return net.kernels.concatenate(parts)
