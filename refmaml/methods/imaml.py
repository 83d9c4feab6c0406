"""iMAML: the meta-gradient at the solution of a proximal inner problem.

The implicit function theorem gives it: phi* solves
grad f(phi) + lambda (phi - theta) = 0. Differentiate in theta:
(H_f + lambda I) dphi*/dtheta = lambda I,  hence, as H_f is symmetric,
dM/dtheta = (dphi*/dtheta)' grad g = (I + H_f/lambda)^-1 grad g.
"""

from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from refmaml.arguments import check_not_negative
from refmaml.batch import Batch
from refmaml.errors import NonFiniteError, expect
from refmaml.layers.layer import Array
from refmaml.methods.adapt import adapt
from refmaml.methods.conjugate_gradients import NONFINITE, STATUSES, Solution, iterate, quotient
from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.inner_loop_adjoint import query_pass, step, step_sizes
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.proximal import Solved
from refmaml.model import Net
from refmaml.update_rules.rule import UpdateRule

# Each is a function in the module of its name.
SOLVERS = ("gradient_descent", "controlled_descent", "newton_cg")
INNER = "inner_not_converged"
INNER_TOL = 0.1  # of the inner residual: the implicit gradient is off by about as much


@dataclass(frozen=True)
class IMAML:
    """phi* = argmin f(phi) + (lambda/2) |phi - theta|^2,  M = g(phi*),
    dM/dtheta = u with (I + H_f(phi*)/lambda) u = grad g(phi*).

    Where only some parameters a adapt (b do not): (I + H_aa/lambda) u_a = grad_a g, and
    dM/dtheta_b = grad_b g - H_ba u_a / lambda. Beyond the inner solve the cost is one
    pass on the query set, a Hessian-vector product for each CG iteration, and one more
    for H_ba u_a.

    regularization  lambda > 0
    inner_steps     steps of the inner solver at most
    inner_tol       ends it earlier in a task, at
                    |grad F| <= inner_tol |lambda (phi - theta)|
    inner_lr        step size of solver="gradient_descent" (the paper's iMAML-GD), and
                    the first one of "controlled_descent"
    solver          or "controlled_descent" (a task's step that raises the inner
                    objective is taken back and halved), or "newton_cg" (the paper's
                    Hessian-free row: cg_steps CG iterations a step, then a line search)
    cg_steps        iterations of the outer solve at most; cg_tol its relative residual
    adapts, frozen  which parameters adapt
    rule            the update rule of solver="gradient_descent" on grad F

    report, for each task: "cg_status"; "cg_residual" |b - A u| / |b|; "inner_residual"
    |grad F| / |lambda (phi - theta)|; "inner_status": "converged", or "maxiter" where
    inner_residual exceeds max(inner_tol, 0.1); and "status", that of the whole answer:
    cg_status, or "inner_not_converged" where the inner solve did not converge.
    trace: phi, query gradient, u, CG residuals.
    Raises ArgumentError, NonFiniteError.
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
    rule: UpdateRule = field(default_factory=UpdateRule, kw_only=True)
    status_labels = MappingProxyType(
        {"cg_status": STATUSES, "inner_status": STATUSES, "status": np.array([*STATUSES, INNER])}
    )
    meta_gradient = meta_gradient
    adapt = adapt

    def __post_init__(self) -> None:
        check_positive(regularization=self.regularization, inner_lr=self.inner_lr)
        check_not_negative(inner_tol=self.inner_tol, cg_tol=self.cg_tol)
        check_steps(inner_steps=self.inner_steps, cg_steps=self.cg_steps)
        used = isinstance(self.rule, UpdateRule) and (self.rule.plain or self.solver == SOLVERS[0])
        wanted = f"an update rule, and none beside solver={' or '.join(map(repr, SOLVERS[1:]))}"
        expect(used, "rule", wanted, lambda: repr(self.rule))
        expect(self.solver in SOLVERS, "solver", f"one of {', '.join(SOLVERS)}", repr(self.solver))

    @property
    def data_independent(self) -> bool:
        """Whether the operations depend on shapes alone: no solver stops early."""
        return self.solver != "newton_cg" and self.inner_tol == 0

    def init(self, net: Net, theta: Array) -> Array:
        """The meta-parameters (P,): theta itself."""
        return theta

    def mask(self, net: Net, theta: Array) -> Array:
        """1 where a parameter adapts, 0 elsewhere, (P,)."""
        return step_sizes(net, 1, self.adapts, self.frozen, theta.dtype)

    def solve(self, net: Net, theta: Array, x: Array, y: Array) -> Solved:
        """phi* (T, P), the pass at phi*, and each task's relative residual (T,)."""
        solver = getattr(import_module(f"refmaml.methods.{self.solver}"), self.solver)
        mask = self.mask(net, theta)
        return solver(net, theta[None], x, y, self.regularization, mask, self, "support set")

    def adapted(self, net: Net, theta: Array, x: Array, y: Array) -> Array:
        """phi* (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...)."""
        return self.solve(net, theta, x, y)[0]

    def task_gradients(self, net: Net, theta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """dM_t/dtheta for each task, (T, P)."""
        mask, strength = self.mask(net, theta), self.regularization
        phi, support, inner_residual = self.solve(net, theta, batch.x_support, batch.y_support)
        query, A = query_pass(net, phi, batch), -mask / strength

        def product(v: Array) -> Array:  # (I + H_aa / lambda) v
            return step(net, v, A, net.hvp(support, v))

        b = mask * query.grad
        cg = iterate(product, b, self.cg_steps, self.cg_tol, net.kernels, net.early_stop)
        overflowed = cg.status == NONFINITE
        net.require(~overflowed.any(), lambda: refuse_solve(net.kernels.to_host(overflowed)))
        gradient = cg.x
        if self.frozen or not net.mask(self.adapts).all():  # the parameters b
            H_u = net.hvp(support, cg.x)
            gradient = cg.x + (1 - mask) * (query.grad - H_u / strength)
        report = self.report(net.kernels.xp, cg, inner_residual)
        kept = self.trace(theta, phi, query, cg) if trace else {}
        return TaskGradients(query.loss, query.accuracy, gradient, kept, report)

    def report(self, xp: Any, cg: Solution, inner_residual: Array) -> dict[str, Array]:
        """{name: (T,)}: see the class."""
        far_off = ~(inner_residual <= max(self.inner_tol, INNER_TOL))
        residual = quotient(xp, cg.residuals[-1], cg.residuals[0], cg.residuals[0] > 0)
        return {
            "cg_status": cg.status,
            "inner_status": far_off.astype(np.int8),  # CONVERGED, or MAXITER = 1
            "inner_residual": inner_residual,
            "cg_residual": residual,
            "status": xp.where(far_off, np.int8(len(STATUSES)), cg.status),
        }

    def trace(self, theta: Array, phi: Array, query: Any, cg: Solution) -> dict[str, list]:
        """{name: list of arrays (T or 1, P) or (T, 1)}: see the class."""
        residuals = [row[:, None] for row in cg.residuals]
        kept = {"phi": [theta[None], phi], "query_grad": [query.grad], "u": [cg.x]}
        return {**kept, "cg_residuals": residuals}


def refuse_solve(overflowed: Array, system: str = "(I + H/lambda) u") -> NoReturn:
    """Raise NonFiniteError for the first system (T,) whose solve overflowed."""
    raise NonFiniteError(
        f"conjugate gradients on {system} = grad g: expected finite numbers, "
        "got an overflow in a product or a square",
        int(overflowed.argmax()),
    )
