"""First-order MAML: MAML with its Hessian terms dropped."""
from dataclasses import dataclass

from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.recursion import descend, query, step_sizes


@dataclass(frozen=True)
class FirstOrderMAML:
    """phi_{k+1} = phi_k - alpha grad f(phi_k), phi_0 = theta;  "dM/dtheta" = grad g(phi_K), as if dphi_K/dtheta were I.

    inner_lr     alpha > 0
    inner_steps  K >= 1
    adapts       which parameters take inner steps: names, wildcards, layer classes, "head", "body" (Parameters.mask)
    frozen       which of those do not after all
    Source: Finn, Abbeel, Levine 2017, section 5.2; Nichol, Achiam, Schulman 2018, section 4.
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
        """The meta-parameters (P,): theta itself."""
        return theta

    def rates(self, net, theta):
        """A_0 .. A_{K-1}: alpha where a parameter adapts, 0 elsewhere."""
        return [step_sizes(net, self.inner_lr, self.adapts, self.frozen, theta.dtype)] * self.inner_steps

    def adapt(self, net, theta, x, y):
        """phi_K (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...)."""
        phis, _ = descend(net, theta[None], self.rates(net, theta), x, y, keep=False)
        return phis[-1]

    def task_gradients(self, net, theta, batch, trace):
        """grad g(phi_K) for each task, (T, P)."""
        phis, support = descend(net, theta[None], self.rates(net, theta), batch.x_support, batch.y_support, keep=False)
        after = query(net, phis[-1], batch)
        kept = {"phi": phis, "inner_grad": [p.grad for p in support], "lam": [after.grad]} if trace else {}
        return TaskGradients(after.loss, after.accuracy, after.grad, kept)
