"""MAML++: learned step sizes of each layer and step, a query loss after each step."""

from dataclasses import dataclass

from refmaml.arguments import is_number
from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
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
    A "layer" is a named array, as in the authors' code.
    Meta-parameters (P + L K,): [theta, alpha_{1,0} .. alpha_{L,0}, alpha_{1,1} ..].
    Not included: batch-norm statistics and biases for each inner step (the paper's
    BNRS, BNWB). Raises ArgumentError, NonFiniteError.
    Source: Antoniou, Edwards, Storkey 2019, section 4 (MSL, LSLR).
    """

    inner_steps: int = 5
    loss_weights: tuple | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        v = self.loss_weights
        expect(
            v is None or (len(v) == self.inner_steps and all(map(is_number, v))),
            "loss_weights",
            f"{self.inner_steps} finite numbers, one for each inner step",
            repr(v),
        )

    def init(self, net: Net, theta: Array) -> Array:
        """[theta, alpha], alpha step by step."""

        def work(net: Net, theta: Array) -> tuple[list, dict]:
            L, full = len(net.blocks), net.kernels.xp.full
            alpha = [full(L, length, theta.dtype) for length in self.step_lengths]
            return [net.kernels.concatenate([theta, *alpha])], {}

        return net.run(work, theta)[0][0]

    def unpack(self, net: Net, meta: Array) -> tuple[Array, Array]:
        """(theta (P,), alpha (K, L)), two views; the same for a gradient."""
        return meta[: net.num_params], meta[net.num_params :].reshape(self.inner_steps, -1)

    def start(self, net: Net, meta: Array) -> tuple[Array, list[Array]]:
        """theta (1, P), and for each step the alphas spread over the parameters."""
        theta, alpha = self.unpack(net, meta)
        return theta[None], [self.adapting(net, meta) * spread(net, row) for row in alpha]

    def task_gradients(self, net: Net, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """[dM_t/dtheta, dM_t/dalpha] for each task, (T, P + L K).

        loss is M, accuracy that after the last step.
        """
        phi, rates = self.start(net, meta)
        v = self.loss_weights or (1 / self.inner_steps,) * self.inner_steps
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


def spread(net: Net, row: Array) -> Array:
    """A number for each layer, row (L,), repeated over the layer's parameters: (P,)."""
    parts = [
        net.kernels.xp.broadcast_to(row[l : l + 1], (part.stop - part.start,))
        for l, part in enumerate(net.blocks)
    ]
    return net.kernels.concatenate(parts)
