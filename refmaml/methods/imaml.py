"""iMAML: the meta-gradient at the solution of a proximal inner problem, by the implicit function theorem."""

from dataclasses import dataclass
from types import MappingProxyType

from refmaml.errors import NonFiniteError, expect
from refmaml.methods.adapt import adapt
from refmaml.methods.conjugate_gradients import NONFINITE, STATUSES, iterate, quotient
from refmaml.methods.fields import check_positive, check_steps, check_tolerances
from refmaml.methods.inner_loop_adjoint import query, step, step_sizes
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.proximal import gradient_descent, newton_cg
from refmaml.nonfinite import note

SOLVERS = {"gradient_descent": gradient_descent, "newton_cg": newton_cg}


@dataclass(frozen=True)
class IMAML:
    """phi* = argmin f(phi) + (lambda/2) |phi - theta|^2,  M = g(phi*),  dM/dtheta = u with (I + H_f(phi*)/lambda) u = grad g(phi*).

    Where only some parameters a adapt (b do not): (I + H_aa/lambda) u_a = grad_a g, and dM/dtheta_b = grad_b g - H_ba u_a / lambda.
    Beyond the inner solve that costs one pass on the query set and a Hessian-vector product for each CG iteration, one more for H_ba u_a.

    regularization  lambda > 0
    inner_steps     steps of the inner solver at most; inner_tol stops it earlier in a task, at |grad F| <= inner_tol |lambda (phi - theta)|
    inner_lr        step size of solver="gradient_descent" (the paper's iMAML-GD)
    solver          or "newton_cg" (the paper's Hessian-free row: cg_steps CG iterations a step, then a line search)
    cg_steps        iterations of the outer solve at most; cg_tol its relative residual. On a GPU, where a look is a wait, all are launched:
                    a solved system stands still
    adapts, frozen  which parameters adapt
    report: "cg_status", "cg_residual" (|b - A u| / |b|), "inner_residual" of each task. trace: phi, query gradient, u, CG residuals.
    Source: Rajeswaran, Finn, Kakade, Levine 2019, eq. 3-7 and Algorithms 1-2.
    """

    regularization: float
    inner_steps: int = 16
    inner_lr: float = 0.1
    solver: str = "gradient_descent"
    inner_tol: float = 0.0
    cg_steps: int = 5
    cg_tol: float = 1e-10
    adapts: tuple = ("*",)
    frozen: tuple = ()
    words = MappingProxyType({"cg_status": STATUSES})  # what the numbers of a report stand for
    meta_gradient = meta_gradient
    adapt = adapt

    def __post_init__(self):
        check_positive(regularization=self.regularization, inner_lr=self.inner_lr)
        check_tolerances(inner_tol=self.inner_tol, cg_tol=self.cg_tol)
        check_steps(inner_steps=self.inner_steps, cg_steps=self.cg_steps)
        expect(self.solver in SOLVERS, "solver", f"one of {', '.join(SOLVERS)}", repr(self.solver))

    @property
    def graph_capturable(self):
        """What is launched depends on shapes alone, but for a solver that goes on or not by what it finds."""
        return self.solver == "gradient_descent" and self.inner_tol == 0

    def init(self, net, theta):
        """The meta-parameters (P,): theta itself."""
        return theta

    def solve(self, net, theta, x, y):
        """phi* (T, P), the primal pass there, and each task's relative residual (T,)."""
        moves = step_sizes(net, 1, self.adapts, self.frozen, theta.dtype)
        return SOLVERS[self.solver](
            net, theta[None], x, y, self.regularization, moves, self, "support set"
        )

    def adapted(self, net, theta, x, y):
        """phi* (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...)."""
        return self.solve(net, theta, x, y)[0]

    def task_gradients(self, net, theta, batch, trace):
        """dM_t/dtheta for each task, (T, P)."""
        moves = step_sizes(net, 1, self.adapts, self.frozen, theta.dtype)
        phi, support, inner_residual = self.solve(net, theta, batch.x_support, batch.y_support)
        after, A = query(net, phi, batch), -moves / self.regularization

        def product(v):  # (I + H_aa / lambda) v
            return step(net, v, A, net.hvp(support, v))

        xp = net.kernels.xp
        cg = iterate(
            product,
            moves * after.grad,
            self.cg_steps,
            self.cg_tol,
            net.kernels,
            look=not net.kernels.on_device,
        )
        overflown = cg.status == NONFINITE
        note(net, ~overflown.any(), lambda: refuse_solve(overflown))
        gradient = cg.x
        if self.frozen or not net.mask(self.adapts).all():
            gradient = cg.x + (1 - moves) * (
                after.grad - net.hvp(support, cg.x) / self.regularization
            )
        report = {
            "cg_status": cg.status,
            "inner_residual": inner_residual,
            "cg_residual": quotient(xp, cg.residuals[-1], cg.residuals[0], cg.residuals[0] > 0),
        }
        kept = (
            {
                "phi": [theta[None], phi],
                "query_grad": [after.grad],
                "u": [cg.x],
                "cg_residuals": [row[:, None] for row in cg.residuals],
            }
            if trace
            else {}
        )
        return TaskGradients(after.loss, after.accuracy, gradient, kept, report)


def refuse_solve(overflown):
    """Raise NonFiniteError for the first system whose solve left the finite numbers."""
    raise NonFiniteError(
        "conjugate gradients on (I + H/lambda) u = grad g: expected finite numbers, got an overflow in a product "
        "or a square",
        int(overflown.argmax()),
    )
