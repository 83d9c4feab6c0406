"""Meta-SGD: MAML that learns a step size for every parameter along with theta."""

from dataclasses import dataclass

from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.model import Net


@dataclass(frozen=True)
class MetaSGD(DifferentiatedLoop):
    """phi_{k+1} = phi_k - A * grad f(phi_k), A (P,) learned, the same in every step;
    dM/dtheta = lam_0,  dM/dA = sum_k -grad f(phi_k) * lam_{k+1}.

    inner_lr is the start of A where a parameter adapts; elsewhere A starts, and stays,
    at 0. adapts, frozen, recompute: see inner_loop.py. The paper takes one step.
    Meta-parameters (2 P,): [theta, A]. Raises ArgumentError, NonFiniteError.
    Source: Li, Zhou, Chen, Li 2017, eq. 4 and Algorithm 1.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        single = not isinstance(self.inner_lr, tuple)
        expect(single, "inner_lr", "one number, the start of A in all steps", repr(self.inner_lr))

    def init(self, net: Net, theta: Array) -> Array:
        """[theta, A]."""

        def work(net: Net, theta: Array) -> tuple[list, dict]:
            A = self.adapting(net, theta) * theta.dtype.type(self.inner_lr)
            return [net.kernels.concatenate([theta, A])], {}

        return net.run(work, theta)[0][0]

    def unpack(self, net: Net, meta: Array) -> tuple[Array, Array]:
        """(theta, A), two views; the same for a gradient."""
        return meta[: net.num_params], meta[net.num_params :]

    def start(self, net: Net, meta: Array) -> tuple[Array, list[Array]]:
        """theta (1, P), and A for every step."""
        theta, A = self.unpack(net, meta)
        return theta[None], [A] * self.inner_steps

    def task_gradients(self, net: Net, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """[dM_t/dtheta, dM_t/dA] for each task, (T, 2 P)."""
        phi, rates = self.start(net, meta)
        mask = self.adapting(net, meta)
        path = descend(net, self, phi, rates, batch.x_support, batch.y_support, self.kept)
        query = query_pass(net, path.phis[-1], batch)
        back = adjoint(
            net, self, path, rates, query.grad, of_rates=lambda dA: mask * dA, keep=trace
        )
        gradient = net.kernels.concatenate([back.lam[0], sum(back.rates)], axis=1)
        kept = collect_trace(trace, path, back)
        return TaskGradients(query.loss, query.accuracy, gradient, kept)
