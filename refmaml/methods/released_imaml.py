"""The steps of the program that iMAML's authors released; their paper has others.

The paper's method is in imaml.py. The program (aravindr93/imaml_dev, examples and
learner_model.py, with the flags of its README) does this for each task:

    phi_{k+1} = phi_k - alpha grad f(phi_k)       K steps from theta, no proximal term
    phi       = phi_K - alpha lambda (phi_K - theta)           one pull back to theta
    (2 I + H_f(phi) / (lambda + 10)) u = grad g(phi)           by conjugate gradients

u is the direction of the outer step; held-out tasks are judged at phi_K. With lambda =
2 and alpha = 0.1 the pull is phi = 0.8 phi_K + 0.2 theta. phi does not solve the inner
problem of the paper, and u is not a derivative of any loss: the 2 and the 10 bound the
condition number, at the price that u is close to half of a first-order gradient.
"""

from dataclasses import dataclass
from types import MappingProxyType

from refmaml.arguments import check_not_negative
from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods.adapt import adapt
from refmaml.methods.conjugate_gradients import NONFINITE, iterate
from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.imaml import IMAML, refuse_solve
from refmaml.methods.inner_loop_adjoint import query_pass, step
from refmaml.methods.maml import MAML
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.proximal import objective_gradient, relative_residual
from refmaml.model import Net


@dataclass(frozen=True)
class ReleasedIMAML:
    """The direction u of the authors' program; see the module. Defaults are its flags.

    regularization  lambda > 0 (--lam)
    inner_steps     K (--n_steps); inner_lr: alpha (--inner_lr)
    cg_steps        iterations of conjugate gradients at most (--cg_steps); cg_tol their
                    relative residual
    damping         added to lambda in the system (--lam_damping)
    shift           added to the identity in the system (regu_coef)

    All parameters adapt. report and trace: those of IMAML; "inner_residual" is that of
    the paper's inner problem at phi, and "cg_residual" that of the program's system.
    Raises ArgumentError, NonFiniteError.
    Source: aravindr93/imaml_dev on GitHub.
    """

    regularization: float = 2.0
    inner_steps: int = 16
    inner_lr: float = 0.1
    cg_steps: int = 5
    cg_tol: float = 1e-10
    damping: float = 10.0
    shift: float = 1.0
    status_labels = MappingProxyType(dict(IMAML.status_labels))
    data_independent = True
    meta_gradient = meta_gradient
    adapt = adapt

    def __post_init__(self) -> None:
        check_positive(regularization=self.regularization, inner_lr=self.inner_lr)
        check_not_negative(cg_tol=self.cg_tol, damping=self.damping, shift=self.shift)
        check_steps(inner_steps=self.inner_steps, cg_steps=self.cg_steps)

    def init(self, net: Net, theta: Array) -> Array:
        """The meta-parameters (P,): theta itself."""
        return theta

    def adapted(self, net: Net, theta: Array, x: Array, y: Array) -> Array:
        """phi_K (T, P), without the pull: the program judges held-out tasks there."""
        return MAML(self.inner_lr, self.inner_steps).adapted(net, theta, x, y)

    def task_gradients(self, net: Net, theta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """u of each task, (T, P)."""
        strength, ones = self.regularization, net.kernels.xp.ones(net.num_params, theta.dtype)
        end = self.adapted(net, theta, batch.x_support, batch.y_support)
        phi = step(net, end, self.inner_lr * strength * ones, end - theta)
        support = net.primal(phi, batch.x_support, batch.y_support)
        net.require_finite(support, phi, batch.x_support, "support set, after the pull")
        query = query_pass(net, phi, batch)
        A = -ones / (strength + self.damping)

        def product(v: Array) -> Array:  # ((1 + shift) I + H / (lambda + damping)) v
            return step(net, (1 + self.shift) * v, A, net.hvp(support, v))

        b = query.grad
        cg = iterate(product, b, self.cg_steps, self.cg_tol, net.kernels, net.early_stop)
        overflowed = cg.status == NONFINITE
        system = "the program's system for u"
        net.require(
            ~overflowed.any(), lambda: refuse_solve(net.kernels.to_host(overflowed), system)
        )
        gradient = objective_gradient(support, phi, theta[None], strength, ones)
        residual = relative_residual(net.kernels, gradient, phi, theta[None], strength)
        paper = IMAML(strength)
        report = paper.report(net.kernels.xp, cg, residual)
        kept = paper.trace(theta, phi, query, cg) if trace else {}
        return TaskGradients(query.loss, query.accuracy, cg.x, kept, report)
