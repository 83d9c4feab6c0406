"""First-order MAML: MAML with its Hessian terms dropped."""

from dataclasses import dataclass

from refmaml.methods.inner_loop import InnerLoop
from refmaml.methods.inner_loop_adjoint import Adjoint, collect_trace, descend, query, run_fused
from refmaml.methods.meta_gradient import TaskGradients


@dataclass(frozen=True)
class FirstOrderMAML(InnerLoop):
    """phi_{k+1} = phi_k - alpha grad f(phi_k), phi_0 = theta;  "dM/dtheta" = grad g(phi_K), as if dphi_K/dtheta were I.

    inner_lr (alpha), inner_steps (K), adapts, frozen: see InnerLoop. Raises ArgumentError, NonFiniteError.
    Source: Finn, Abbeel, Levine 2017, section 5.2; Nichol, Achiam, Schulman 2018, section 4.
    """

    run_fused = True  # where a net offers that

    def task_gradients(self, net, theta, batch, trace):
        """grad g(phi_K) for each task, (T, P)."""
        phi, rates = self.start(net, theta)
        after = run_fused(net, phi, rates, batch, trace, order=1)
        if after:  # all that follows, as one kernel
            return TaskGradients(after.loss, after.accuracy, after.grad)
        phis, support = descend(
            net, phi, rates, batch.x_support, batch.y_support, keep="phis" if trace else "last"
        )
        after = query(net, phis[-1], batch)
        back = Adjoint([after.grad], [], [])
        return TaskGradients(
            after.loss, after.accuracy, back.lam[0], collect_trace(trace, phis, support, back)
        )
