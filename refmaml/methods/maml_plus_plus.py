"""MAML++: a learned step size for every layer and inner step, and a query loss after each step."""
from dataclasses import dataclass

import numpy as np

from refmaml.errors import expect
from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.recursion import adjoint, descend, query, step_sizes


@dataclass(frozen=True)
class MAMLPlusPlus:
    """phi_{k+1} = phi_k - alpha_{l,k} grad_l f(phi_k) in each layer l;  M = sum_{k=1..K} v_k g(phi_k);
    lam_k = lam_{k+1} - H_f(phi_k) (A_k lam_{k+1}) + v_k grad g(phi_k);  dM/dalpha_{l,k} = sum over layer l of -grad f(phi_k) lam_{k+1}.

    inner_lr      what every alpha_{l,k} starts from
    inner_steps   K >= 1
    loss_weights  v_1 .. v_K; None: 1/K each, where the paper's annealing starts. (0, ..., 0, 1) is where it ends: MAML's loss
    adapts, frozen   which parameters take inner steps at all; the paper's code: frozen=("BatchNorm2d",)
    A "layer" is a named array, as in the authors' code. Meta-parameters (P + L K,): [theta, alpha_{1,0} .. alpha_{L,0}, alpha_{1,1} ..].
    Not included: batch-norm statistics and biases per inner step (the paper's BNRS, BNWB).
    Source: Antoniou, Edwards, Storkey 2019, section 4 (MSL, LSLR).
    """
    inner_lr: float
    inner_steps: int = 5
    loss_weights: tuple | None = None
    adapts: tuple = ("*",)
    frozen: tuple = ()
    meta_gradient = meta_gradient

    def __post_init__(self):
        check_positive(inner_lr=self.inner_lr)
        check_steps(inner_steps=self.inner_steps)
        expect(self.loss_weights is None or len(self.loss_weights) == self.inner_steps, "loss_weights",
               f"{self.inner_steps} weights, one for each inner step", repr(self.loss_weights))

    def init(self, net, theta):
        """[theta, alpha], alpha step by step."""
        return np.concatenate([theta, np.full(self.inner_steps * len(net.blocks), self.inner_lr, theta.dtype)])

    def unpack(self, net, meta):
        """(theta (P,), alpha (K, L)), two views; the same for a gradient."""
        return meta[:net.num_params], meta[net.num_params:].reshape(self.inner_steps, -1)

    def rates(self, net, meta):
        """A_0 .. A_{K-1} (P,): every layer's alpha spread over its parameters."""
        theta, alpha = self.unpack(net, meta)
        lengths = [part.stop - part.start for part in net.blocks]
        adapting = step_sizes(net, 1, self.adapts, self.frozen, theta.real.dtype)
        return [adapting * np.repeat(row, lengths) for row in alpha]

    def adapt(self, net, meta, x, y):
        """phi_K (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...)."""
        theta, _ = self.unpack(net, meta)
        phis, _ = descend(net, theta[None], self.rates(net, meta), x, y, keep=False)
        return phis[-1]

    def task_gradients(self, net, meta, batch, trace):
        """[dM_t/dtheta, dM_t/dalpha] for each task, (T, P + L K); loss is M, accuracy that after the last step."""
        theta, _ = self.unpack(net, meta)
        rates = self.rates(net, meta)
        weights = self.loss_weights or (1 / self.inner_steps,) * self.inner_steps
        phis, support = descend(net, theta[None], rates, batch.x_support, batch.y_support)
        after = [query(net, phi, batch) for phi in phis[1:]]
        injected = [None] + [v * g.grad for v, g in zip(weights[:-1], after[:-1], strict=True)]
        back = adjoint(net, support, rates, weights[-1] * after[-1].grad, injected)
        dalpha = [self.per_layer(net, dA) for dA in back.rates]
        kept = {"phi": phis, "inner_grad": [p.grad for p in support], "lam": back.lam, "hvp": back.hvp} if trace else {}
        return TaskGradients(sum(v * g.loss for v, g in zip(weights, after, strict=True)), after[-1].accuracy,
                             np.concatenate([back.lam[0], *dalpha], axis=1), kept)

    def per_layer(self, net, dA):
        """dA (T, P) summed over each layer that adapts, (T, L)."""
        adapting = step_sizes(net, 1, self.adapts, self.frozen, dA.real.dtype)
        return np.add.reduceat(adapting * dA, [part.start for part in net.blocks], axis=1)
