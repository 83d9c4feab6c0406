"""CAVIA: the inner loop moves a context vector from 0; tasks share the weights."""

from dataclasses import dataclass

from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.model import Net


@dataclass(frozen=True)
class CAVIA(DifferentiatedLoop):
    """c_0 = 0,  c_{k+1} = c_k - alpha grad_c f(theta, c_k),  M = g(theta, c_K);
    dM/dtheta through all of the c_k.

    phi = (theta, c) with A = alpha on c and 0 on theta; dM/dtheta is lam_0 on theta,
    and 0 on c, whose start is fixed. The net holds its context in Context or FiLM
    layers; theta's entries for it are not used.
    inner_lr (alpha), inner_steps (K), recompute: see inner_loop.py.
    Raises ArgumentError, NonFiniteError.
    Source: Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019, eq. 3-5.
    """

    adapts: tuple = ("context",)

    def start(self, net: Net, meta: Array) -> tuple[Array, list[Array]]:
        """theta with the context at 0 (1, P), and alpha on the context."""
        _, rates = super().start(net, meta)
        return (meta * (1 - self.adapting(net, meta)))[None], rates

    def task_gradients(self, net: Net, theta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """dM_t/dtheta for each task, (T, P), 0 on the context."""
        phi, rates = self.start(net, theta)
        path = descend(net, self, phi, rates, batch.x_support, batch.y_support, self.kept)
        query = query_pass(net, path.phis[-1], batch)
        back = adjoint(net, self, path, rates, query.grad, keep=trace)
        gradient = back.lam[0] * (1 - self.adapting(net, theta))
        kept = collect_trace(trace, path, back)
        return TaskGradients(query.loss, query.accuracy, gradient, kept)
