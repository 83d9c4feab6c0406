"""MAML: the gradient of the query loss after K inner steps, through all of them."""

from dataclasses import dataclass

from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.model import Net


@dataclass(frozen=True)
class MAML(DifferentiatedLoop):
    """phi_{k+1} = phi_k - alpha grad f(phi_k), phi_0 = theta;  M = g(phi_K);
    dM/dtheta = (I - alpha H_f(phi_0)) ... (I - alpha H_f(phi_{K-1})) grad g(phi_K).

    inner_lr (alpha), inner_steps (K), adapts, frozen, rule, anchor, inner_batch,
    recompute: see inner_loop.py.
    MAML's Omniglot code uses alpha = 0.4 on a loss summed over K shots:
    CrossEntropy("sum/K").
    Raises ArgumentError, NonFiniteError.
    Source: Finn, Abbeel, Levine 2017, eq. 1 and Algorithm 1.

    On a quadratic f = g = a/2 (w - c)^2 the gradient is (1 - alpha a)^K a (phi_K - c):

    >>> import numpy as np, refmaml as rm
    >>> A, c = np.array([[[2.0]]]), np.array([[3.0]])
    >>> batch = rm.Batch(A, c, A, c)
    >>> method, net = rm.MAML(inner_lr=0.1, inner_steps=2), rm.Quadratic(1)
    >>> method.meta_gradient(net, np.zeros(1), batch).grad
    array([-2.4576])
    """

    def task_gradients(self, net: Net, theta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """dM_t/dtheta = lam_0 for each task, (T, P)."""
        phi, rates = self.start(net, theta)
        path = descend(net, self, phi, rates, batch.x_support, batch.y_support, self.kept)
        query = query_pass(net, path.phis[-1], batch)
        back = adjoint(net, self, path, rates, query.grad, keep=trace)
        kept = collect_trace(trace, path, back)
        return TaskGradients(query.loss, query.accuracy, back.lam[0], kept)
