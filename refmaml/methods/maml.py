"""MAML: the gradient of the query loss after K inner steps, through all of them."""
from dataclasses import dataclass

from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.recursion import adjoint, descend, query, step_sizes


@dataclass(frozen=True)
class MAML:
    """phi_{k+1} = phi_k - alpha grad f(phi_k), phi_0 = theta;  M = g(phi_K);
    dM/dtheta = (I - alpha H_f(phi_0)) ... (I - alpha H_f(phi_{K-1})) grad g(phi_K).

    inner_lr     alpha > 0. MAML's Omniglot code uses 0.4 on a loss summed over K shots: CrossEntropy("sum/K")
    inner_steps  K >= 1
    adapts       which parameters take inner steps: names, wildcards, layer classes, "head", "body" (Parameters.mask)
    frozen       which of those do not after all; they are meta-learned still. MAML's own code: ("BatchNorm2d",)
    Source: Finn, Abbeel, Levine 2017, eq. 1 and Algorithm 1.
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
        """dM_t/dtheta = lam_0 for each task, (T, P)."""
        rates = self.rates(net, theta)
        phis, support = descend(net, theta[None], rates, batch.x_support, batch.y_support)
        after = query(net, phis[-1], batch)
        back = adjoint(net, support, rates, after.grad)
        kept = {"phi": phis, "inner_grad": [p.grad for p in support], "lam": back.lam, "hvp": back.hvp} if trace else {}
        return TaskGradients(after.loss, after.accuracy, back.lam[0], kept)
