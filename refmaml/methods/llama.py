"""LLAMA: MAML's query loss and a Laplace term, the log determinant of the curvature."""

from dataclasses import dataclass
from typing import Any

from refmaml.arguments import check_choice, check_not_negative, check_positive_number, set_fields
from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods import kronecker, laplace
from refmaml.methods.fields import check_steps
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.nonfinite import refuse_non_finite

CURVATURES = ("kronecker", "hessian", "probes")


@dataclass(frozen=True)
class LLAMA(DifferentiatedLoop):
    """M = g(phi_K) + eta log det(H + tau I),  H the Hessian of f at phi_K;
    lam_K = grad g(phi_K) + eta d log det(H + tau I)/dphi_K;
    lam_k = lam_{k+1} - H_f(phi_k) (A_k lam_{k+1}).

    inner_lr (alpha), inner_steps (K), adapts, frozen, rule, anchor, inner_batch,
    recompute: see inner_loop.py. H is that of the whole support set, in the parameters
    that adapt.

    weight     eta >= 0. With f = -(1/N) log p(D | phi), the evidence has 1/(2N)
    precision  tau > 0: the curvature of a Gaussian prior
    curvature  "kronecker": H by Kronecker factors of linear and convolutional layers,
               and one more R-pass (kronecker.py); "hessian": H itself, by a product and
               a complex product for each of its n rows; "probes": `probes` vectors in
               place of the n, and `lanczos_steps` products for each (laplace.py)
    probes, lanczos_steps, probe_seed  of curvature="probes"
    The report has `log_determinant` (T,). With "hessian" and "probes" the parameters
    are real numbers, and NonFiniteError says where H + tau I is not positive definite.
    Raises ArgumentError, NonFiniteError.
    Source: Grant, Finn, Levine, Darrell, Griffiths 2018, Algorithm 3 (ML-LAPLACE).
    """

    weight: float = 1e-3
    precision: float = 1.0
    curvature: str = "kronecker"
    probes: int = 8
    lanczos_steps: int = 20
    probe_seed: int = 0
    data_independent = False  # numbers are read: is the matrix positive definite

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(weight=self.weight)
        set_fields(self, precision=check_positive_number("precision", self.precision))
        check_choice("curvature", self.curvature, CURVATURES)
        check_steps(probes=self.probes, lanczos_steps=self.lanczos_steps)

    def laplace_term(
        self, net: Any, phi: Array, x: Array, y: Array
    ) -> tuple[Array, Array, dict]:  # fmt: skip
        """log det(H + tau I) (T,), its derivative in phi (T, P), and a report."""
        adapting, tau = self.adapting(net, phi), self.precision
        if self.curvature == "kronecker":
            value, gradient = kronecker.log_determinant(net, phi, x, y, adapting, tau)
            ok = net.kernels.xp.isfinite(gradient).all() & net.kernels.xp.isfinite(value).all()
            net.require(ok, lambda: refuse_term(net, value, gradient))
            return value, gradient, {"log_determinant": value}
        at = laplace.Curvature.of(net, phi, x, y, adapting)
        if self.curvature == "hessian":
            found = laplace.by_basis(at, tau)
        else:
            chosen = self.probes, self.lanczos_steps, self.probe_seed
            found = laplace.by_probes(at, tau, *chosen)
        figures = {"log_determinant": found.value, **found.report}
        rows = [found.gradient, *figures.values()]
        gradient, *values = net.kernels.arrays(*(a.astype(phi.dtype) for a in rows))
        report = dict(zip(figures, values, strict=True))
        return report["log_determinant"], gradient, report

    def task_gradients(self, net: Any, theta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """dM_t/dtheta = lam_0 for each task, (T, P)."""
        phi, rates = self.start(net, theta)
        x, y = batch.x_support, batch.y_support
        path = descend(net, self, phi, rates, x, y, self.kept)
        query = query_pass(net, path.phis[-1], batch)
        value, gradient, report = self.laplace_term(net, path.phis[-1], x, y)
        lam = query.grad + self.weight * gradient
        back = adjoint(net, self, path, rates, lam, keep=trace)
        kept = collect_trace(trace, path, back)
        kept |= {"laplace_grad": [gradient]} if trace else {}
        loss = query.loss + self.weight * value
        return TaskGradients(loss, query.accuracy, back.lam[0], kept, report)


def refuse_term(net: Any, value: Array, gradient: Array) -> None:
    """Raise NonFiniteError for the first task whose term is not finite."""
    what = "support set: log det(H + tau I) by Kronecker factors"
    for a in (value, gradient):
        refuse_non_finite(net.kernels.to_host(a), what)
