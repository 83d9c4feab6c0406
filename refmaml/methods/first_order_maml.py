"""First-order MAML: MAML with its Hessian terms dropped."""

from dataclasses import dataclass

from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods.inner_loop import InnerLoop
from refmaml.methods.inner_loop_adjoint import Adjoint, collect_trace, descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.model import Net


@dataclass(frozen=True)
class FirstOrderMAML(InnerLoop):
    """phi_{k+1} = phi_k - alpha grad f(phi_k), phi_0 = theta;
    "dM/dtheta" = grad g(phi_K), as if dphi_K/dtheta were I.

    inner_lr (alpha), inner_steps (K), adapts, frozen, rule, anchor, inner_batch: see
    InnerLoop.
    Raises ArgumentError, NonFiniteError.
    Source: Finn, Abbeel, Levine 2017, section 5.2; Nichol, Achiam, Schulman 2018,
    section 4.
    """

    def task_gradients(self, net: Net, theta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """grad g(phi_K) for each task, (T, P)."""
        phi, rates = self.start(net, theta)
        keep = "phis" if trace else "last"
        path = descend(net, self, phi, rates, batch.x_support, batch.y_support, keep)
        query = query_pass(net, path.phis[-1], batch)
        kept = collect_trace(trace, path, Adjoint([query.grad], [], []))
        return TaskGradients(query.loss, query.accuracy, query.grad, kept)
