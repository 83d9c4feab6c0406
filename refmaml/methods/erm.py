"""ERM, joint training: no adaptation, the mean query loss of all tasks at theta."""

from dataclasses import dataclass

from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods.adapt import adapt
from refmaml.methods.inner_loop_adjoint import query_pass
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.model import Net


@dataclass(frozen=True)
class ERM:
    """K = 0: M = g(theta), dM/dtheta = grad g(theta). The support set is not used.

    Raises ArgumentError, NonFiniteError.
    """

    data_independent = True  # which operations run depends on shapes alone
    meta_gradient = meta_gradient
    adapt = adapt

    def init(self, net: Net, theta: Array) -> Array:
        """The meta-parameters (P,): theta itself."""
        return theta

    def adapted(self, net: Net, theta: Array, x: Array, y: Array) -> Array:
        """theta for every task, (T, P)."""
        return net.kernels.xp.broadcast_to(theta, (len(x), len(theta)))

    def task_gradients(self, net: Net, theta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """grad g(theta) for each task, (T, P)."""
        query = query_pass(net, theta[None], batch)
        kept = {"phi": [theta[None]]} if trace else {}
        return TaskGradients(query.loss, query.accuracy, query.grad, kept)
