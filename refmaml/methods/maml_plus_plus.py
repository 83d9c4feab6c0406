"""MAML++: a learned step size for every layer and inner step, and a query loss after each step."""

from dataclasses import dataclass

import numpy as np

from refmaml.errors import expect
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query
from refmaml.methods.meta_gradient import TaskGradients


@dataclass(frozen=True)
class MAMLPlusPlus(DifferentiatedLoop):
    """phi_{k+1} = phi_k - alpha_{l,k} grad_l f(phi_k) in each layer l;  M = sum_{k=1..K} v_k g(phi_k);
    lam_k = lam_{k+1} - H_f(phi_k) (A_k lam_{k+1}) + v_k grad g(phi_k);  dM/dalpha_{l,k} = sum over layer l of -grad f(phi_k) lam_{k+1}.

    inner_lr      what every alpha_{l,k} starts from; inner_steps (K), adapts, frozen, recompute: see inner_loop.py
    loss_weights  v_1 .. v_K; None: 1/K each, where the paper's annealing starts. (0, ..., 0, 1) is where it ends: MAML's loss
    A "layer" is a named array, as in the authors' code. Meta-parameters (P + L K,): [theta, alpha_{1,0} .. alpha_{L,0}, alpha_{1,1} ..].
    Not included: batch-norm statistics and biases per inner step (the paper's BNRS, BNWB). Raises ArgumentError, NonFiniteError.
    Source: Antoniou, Edwards, Storkey 2019, section 4 (MSL, LSLR).
    """

    inner_steps: int = 5
    loss_weights: tuple | None = None

    def __post_init__(self):
        super().__post_init__()
        expect(
            self.loss_weights is None or len(self.loss_weights) == self.inner_steps,
            "loss_weights",
            f"{self.inner_steps} weights, one for each inner step",
            repr(self.loss_weights),
        )

    def init(self, net, theta):
        """[theta, alpha], alpha step by step."""
        k = net.kernels
        (here,) = k.to_device(theta)
        return k.match_input(
            k.concatenate(
                [here, k.xp.full(self.inner_steps * len(net.blocks), self.inner_lr, theta.dtype)]
            ),
            theta,
        )

    def unpack(self, net, meta):
        """(theta (P,), alpha (K, L)), two views; the same for a gradient."""
        return meta[: net.num_params], meta[net.num_params :].reshape(self.inner_steps, -1)

    def start(self, net, meta):
        """theta (1, P), and for each step every layer's alpha spread over its parameters."""
        theta, alpha = self.unpack(net, meta)
        lengths, k = [part.stop - part.start for part in net.blocks], net.kernels
        spread = (
            k.concatenate([k.xp.broadcast_to(row[l : l + 1], (n,)) for l, n in enumerate(lengths)])
            for row in alpha
        )
        return theta[None], [
            self.adapting(net, meta) * row for row in spread
        ]  # (CuPy's repeat looks at its list, and so waits)

    def task_gradients(self, net, meta, batch, trace):
        """[dM_t/dtheta, dM_t/dalpha] for each task, (T, P + L K); loss is M, accuracy that after the last step."""
        phi, rates = self.start(net, meta)
        weights = self.loss_weights or (1 / self.inner_steps,) * self.inner_steps
        phis, support = descend(net, phi, rates, batch.x_support, batch.y_support, self.kept)
        after = [query(net, phi, batch) for phi in phis[1:]]
        injected = [None] + [v * g.grad for v, g in zip(weights[:-1], after[:-1], strict=True)]
        back = adjoint(
            net,
            support,
            rates,
            weights[-1] * after[-1].grad,
            injected,
            of_rates=lambda dA: self.per_layer(net, dA),
            keep=trace,
        )
        return TaskGradients(
            sum(v * g.loss for v, g in zip(weights, after, strict=True)),
            after[-1].accuracy,
            net.kernels.concatenate([back.lam[0], *back.rates], axis=1),
            collect_trace(trace, phis, support, back),
        )

    def per_layer(self, net, dA):
        """dA (T, P) summed over each layer that adapts, (T, L)."""
        moved = self.adapting(net, dA) * dA
        if not net.kernels.on_device:
            return np.add.reduceat(moved, [part.start for part in net.blocks], axis=1)
        sums = net.kernels.xp.empty(
            (len(moved), len(net.blocks)), moved.dtype
        )  # CuPy's reduceat takes differences of running sums,
        for l, part in enumerate(net.blocks):  # in which digits cancel
            sums[:, l] = moved[:, part].sum(axis=1)
        return sums
