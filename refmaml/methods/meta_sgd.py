"""Meta-SGD: MAML that learns a step size for every parameter along with theta."""
from dataclasses import dataclass

import numpy as np

from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.recursion import adjoint, descend, query, step_sizes


@dataclass(frozen=True)
class MetaSGD:
    """phi_{k+1} = phi_k - A * grad f(phi_k) with a learned vector A (P,), the same in every step;
    dM/dtheta = lam_0,  dM/dA = sum_k -grad f(phi_k) * lam_{k+1}.

    inner_lr     what every entry of A starts from
    inner_steps  K >= 1 (the paper's is 1)
    adapts, frozen   where A starts at inner_lr; elsewhere it starts, and stays, at 0
    Meta-parameters (2 P,): [theta, A].
    Source: Li, Zhou, Chen, Li 2017, eq. 4 and Algorithm 1.
    """
    inner_lr: float
    inner_steps: int = 1
    adapts: tuple = ("*",)
    frozen: tuple = ()
    meta_gradient = meta_gradient

    def __post_init__(self):
        check_positive(inner_lr=self.inner_lr)
        check_steps(inner_steps=self.inner_steps)

    def init(self, net, theta):
        """[theta, A]."""
        return np.concatenate([theta, self.adapting(net, theta) * theta.dtype.type(self.inner_lr)])

    def adapting(self, net, theta):
        """1 where a parameter adapts, 0 elsewhere, (P,)."""
        return step_sizes(net, 1, self.adapts, self.frozen, theta.real.dtype)

    def unpack(self, net, meta):
        """(theta, A), two views; the same for a gradient."""
        return meta[:net.num_params], meta[net.num_params:]

    def adapt(self, net, meta, x, y):
        """phi_K (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...)."""
        theta, A = self.unpack(net, meta)
        phis, _ = descend(net, theta[None], [A] * self.inner_steps, x, y, keep=False)
        return phis[-1]

    def task_gradients(self, net, meta, batch, trace):
        """[dM_t/dtheta, dM_t/dA] for each task, (T, 2 P)."""
        theta, A = self.unpack(net, meta)
        rates = [A] * self.inner_steps
        phis, support = descend(net, theta[None], rates, batch.x_support, batch.y_support)
        after = query(net, phis[-1], batch)
        back = adjoint(net, support, rates, after.grad)
        dA = self.adapting(net, theta) * sum(back.rates)
        kept = {"phi": phis, "inner_grad": [p.grad for p in support], "lam": back.lam, "hvp": back.hvp} if trace else {}
        return TaskGradients(after.loss, after.accuracy, np.concatenate([back.lam[0], dA], axis=1), kept)
