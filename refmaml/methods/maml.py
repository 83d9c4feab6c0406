"""MAML: the gradient of the query loss after K inner steps, through all of them."""

from dataclasses import dataclass

from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query, run_fused
from refmaml.methods.meta_gradient import TaskGradients


@dataclass(frozen=True)
class MAML(DifferentiatedLoop):
    """phi_{k+1} = phi_k - alpha grad f(phi_k), phi_0 = theta;  M = g(phi_K);
    dM/dtheta = (I - alpha H_f(phi_0)) ... (I - alpha H_f(phi_{K-1})) grad g(phi_K).

    inner_lr (alpha), inner_steps (K), adapts, frozen, recompute: see inner_loop.py. MAML's Omniglot code uses alpha = 0.4 on a loss
    summed over K shots: CrossEntropy("sum/K"). Raises ArgumentError, NonFiniteError.
    Source: Finn, Abbeel, Levine 2017, eq. 1 and Algorithm 1.
    """

    run_fused = True  # where a net offers that

    def task_gradients(self, net, theta, batch, trace):
        """dM_t/dtheta = lam_0 for each task, (T, P)."""
        phi, rates = self.start(net, theta)
        after = run_fused(net, phi, rates, batch, trace, recompute=self.recompute)
        if after:  # all that follows, as one kernel
            return TaskGradients(after.loss, after.accuracy, after.grad)
        phis, support = descend(net, phi, rates, batch.x_support, batch.y_support, self.kept)
        after = query(net, phis[-1], batch)
        back = adjoint(net, support, rates, after.grad, keep=trace)
        return TaskGradients(
            after.loss, after.accuracy, back.lam[0], collect_trace(trace, phis, support, back)
        )
