"""CAVIA: the inner loop moves a context vector only, which every task starts from 0; the weights are shared by all tasks."""
from dataclasses import dataclass

from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.recursion import adjoint, descend, query, step_sizes


@dataclass(frozen=True)
class CAVIA:
    """c_0 = 0,  c_{k+1} = c_k - alpha grad_c f(theta, c_k),  M = g(theta, c_K);  dM/dtheta through all of the c_k.

    phi = (theta, c) with A = alpha on c and 0 on theta; dM/dtheta is lam_0 on theta, and 0 on c: what it started from is no choice.
    The net holds its context in Context or FiLM layers.

    inner_lr     alpha > 0
    inner_steps  K >= 1
    Source: Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019, eq. 3-5.
    """
    inner_lr: float
    inner_steps: int = 1
    adapts: tuple = ("context",)
    meta_gradient = meta_gradient

    def __post_init__(self):
        check_positive(inner_lr=self.inner_lr)
        check_steps(inner_steps=self.inner_steps)

    def init(self, net, theta):
        """The meta-parameters (P,): theta itself, its context entries unused."""
        return theta

    def start(self, net, theta):
        """phi_0 (1, P) = theta with the context at 0, and the inner step sizes A (P,)."""
        A = step_sizes(net, self.inner_lr, self.adapts, (), theta.dtype)
        return (theta * (A == 0))[None], A

    def adapt(self, net, theta, x, y):
        """phi_K (T, P) = theta with each task's own context."""
        phi, A = self.start(net, theta)
        phis, _ = descend(net, phi, [A] * self.inner_steps, x, y, keep=False)
        return phis[-1]

    def task_gradients(self, net, theta, batch, trace):
        """dM_t/dtheta for each task, (T, P), 0 on the context."""
        phi, A = self.start(net, theta)
        rates = [A] * self.inner_steps
        phis, support = descend(net, phi, rates, batch.x_support, batch.y_support)
        after = query(net, phis[-1], batch)
        back = adjoint(net, support, rates, after.grad)
        kept = {"phi": phis, "inner_grad": [p.grad for p in support], "lam": back.lam, "hvp": back.hvp} if trace else {}
        return TaskGradients(after.loss, after.accuracy, back.lam[0] * (A == 0), kept)
