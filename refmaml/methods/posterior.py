"""Gaussian posteriors over a task's parameters and over theta, and draws from them.

With -log p(D | phi) = s f(phi), f linear in the outputs z to first order and G = J'
H_L J its Gauss-Newton matrix (J = dz/dphi, H_L the loss's Hessian in z), in the
parameters that adapt:

    of a task    N(phi_K, (s G + tau I)^-1)               prior N(., I/tau)
                 N(phi_K, alpha/s sum_{k<K} (I - alpha G)^k)   the prior of K steps
    of theta     N(theta, (s sum_t J_t' H_L J_t + tau I)^-1),  J_t = dz_t/dtheta

The second is exact for linear regression, with the prior that K steps of length alpha
imply (oracles/early_stopping.py): it needs no tau. J_t is the derivative of the query
outputs *after* adaptation. Each of its rows is an adjoint, pulled back through the
inner loop as every other adjoint is:

    lam_K = (dz/dphi_K)' e_i,   lam_k = lam_{k+1} - H_f(phi_k) (A_k lam_{k+1})

A draw of a task's posterior is a set of parameters; their outputs are best taken to
first order too, z(phi_K) + J (phi - phi_K), as G is. A draw of theta is adapted to a
task as theta is: where the task's data is ambiguous, the adapted functions disagree.

All of it is float64 on the reference kernels.
Sources: MacKay 1992 (Laplace's method); Immer, Korzepa, Bauer 2021 (the outputs to
first order); Grant et al. 2018; Finn, Xu, Levine 2018 (draws of theta).
"""

from typing import Any, NamedTuple

import numpy as np

from refmaml.arguments import check_integer, check_positive_number
from refmaml.arrays import described
from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.kernels.reference_set import reference
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, descend
from refmaml.primal import Primal

ROWS = 64  # rows of a Jacobian, or products, that are computed side by side


class Gaussian(NamedTuple):
    """N(mean, root root'); mean (P,), root (P, n)."""

    mean: np.ndarray
    root: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """(P, P)."""
        return self.root @ self.root.T

    def draw(self, count: int, seed: int = 0) -> np.ndarray:
        """`count` draws (count, P). Raises ArgumentError."""
        count = check_integer("count", count)
        z = np.random.default_rng(seed).standard_normal((count, self.root.shape[1]))
        return self.mean + z @ self.root.T


# ---- one task ------------------------------------------------------------------------


def task_posterior(
    net: Any,
    method: Any,
    theta: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    scale: float,
    precision: float | None = None,
) -> Gaussian:
    """The posterior of one task's parameters phi (P,).

    method     MAML, or another that learns theta alone by a differentiated inner loop
    theta      (P,)
    x, y       the task's support set, (1, N, ...)
    scale      s > 0: -log p(D | phi) = s f(phi). For a mean of squares of N numbers
               with noise of variance v it is N/(2 v); for a mean cross-entropy it is N
    precision  tau > 0; None: the prior of the method's K steps, which then are plain
               steps of one length
    Raises ArgumentError, NonFiniteError.
    """
    net, theta, scale = checked(net, method, theta, scale)
    expect(len(x) == 1, "x", "one task, (1, examples, ...)", lambda: described(x))
    phi = method.adapt(net, theta, x, y)
    places = np.flatnonzero(method.adapting(net, theta))
    values, vectors = np.linalg.eigh(gauss_newton(net, phi, x, y, places))
    if precision is None:
        variances = variances_of_steps(method, values) / scale
    else:
        precision = check_positive_number("precision", precision)
        variances = 1 / (scale * values.clip(0) + precision)
    root = np.zeros((len(theta), len(places)))
    root[places] = vectors * np.sqrt(variances)
    return Gaussian(phi[0], root)


def variances_of_steps(method: DifferentiatedLoop, values: np.ndarray) -> np.ndarray:
    """alpha sum_{k<K} (1 - alpha h)^k for each eigenvalue h. Raises ArgumentError."""
    alpha, plain = method.inner_lr, method.rule.plain and not method.anchor
    simple = plain and method.inner_batch is None and not isinstance(alpha, tuple)
    expect(simple, "precision", "a number, or plain steps of one length", "None")
    reach = alpha * values.max()
    expect(reach < 2, "inner_lr", "alpha h < 2 for the eigenvalues h of G", f"{reach:.3g}")
    left = 1 - alpha * values
    return alpha * sum(left**k for k in range(method.inner_steps))


def gauss_newton(
    net: Any, phi: np.ndarray, x: np.ndarray, y: np.ndarray, places: np.ndarray
) -> np.ndarray:
    """G (n, n) of one task's loss at phi (1, P): a product with each basis vector."""
    columns = np.eye(phi.shape[1])[places]
    rows = []
    for first in range(0, len(columns), ROWS):
        v = columns[first : first + ROWS]
        some = [a.repeat(len(v), axis=0) for a in (phi, x, y)]
        rows.append(net.gauss_newton_product(net.primal(*some), v)[:, places])
    return np.concatenate(rows)


def linearized_outputs(net: Any, draws: np.ndarray, mean: np.ndarray, x: np.ndarray) -> np.ndarray:
    """z(mean) + J (draw - mean) (R, M, D) for draws (R, P), at inputs x (1, M, ...)."""
    net = net.with_kernels(reference())
    x = x.repeat(len(draws), axis=0).astype(float)
    w = net.parameters.views(mean[None])
    z, saved = net.forward(w, x)
    at = Primal(w, z, z, None, z, saved, None, None)  # what a tangent pass reads of it
    return z + net.r_forward(at, draws - mean)[0]


# ---- theta ---------------------------------------------------------------------------


def theta_posterior(
    net: Any,
    method: DifferentiatedLoop,
    theta: np.ndarray,
    batch: Batch,
    scale: float,
    precision: float,
) -> Gaussian:
    """The posterior of theta (P,) given the query sets of a batch of tasks.

    scale      s > 0: -log p(query set | theta) = s g(phi_K(theta)); see task_posterior
    precision  tau > 0, of the prior N(., I/tau)
    Raises ArgumentError, NonFiniteError.
    """
    net, theta, scale = checked(net, method, theta, scale)
    precision = check_positive_number("precision", precision)
    expect(isinstance(batch, Batch), "batch", "a refmaml.Batch", lambda: described(batch))
    matrix = precision * np.eye(len(theta))
    for t in range(len(batch)):
        J, H_L = query_jacobian(net, method, theta, batch[t : t + 1].astype(theta.dtype))
        matrix += scale * J.T @ (H_L @ J)
    values, vectors = np.linalg.eigh(matrix)
    return Gaussian(theta, vectors / np.sqrt(values.clip(precision)))


def query_jacobian(
    net: Any, method: DifferentiatedLoop, theta: np.ndarray, batch: Batch
) -> tuple[np.ndarray, np.ndarray]:
    """J (M D, P) of a single task's query outputs in theta, and H_L (M D, M D)."""
    start, rates = method.start(net, theta)
    path = descend(net, method, start, rates, batch.x_support, batch.y_support)
    query = net.primal(path.phis[-1], batch.x_query, batch.y_query)
    k, shape = net.kernels, query.outputs.shape
    units = np.eye(query.outputs.size).reshape(-1, *shape)
    J, H_L = [], []
    for unit in units:  # symmetric: a row of H_L is a column
        rdz = net.loss_function.r_backward(k, query.loss_saved, unit)
        lam, _ = net.backward(query.w, query.saved, unit)
        J.append(adjoint(net, method, path, rates, lam).lam[0][0])
        H_L.append(rdz.reshape(-1))
    return np.array(J), np.array(H_L)


def adapted_draws(
    net: Any, method: DifferentiatedLoop, draws: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """phi_K (R, P) from each of the starts theta (R, P), on one task (1, N, ...)."""
    net, _, _ = checked(net, method, draws[0], 1.0)
    rates = method.start(net, draws[0])[1]
    x, y = (a.repeat(len(draws), axis=0) for a in (x, y))
    return descend(net, method, draws, rates, x, y, keep="last").phis[-1]


def checked(net: Any, method: Any, theta: Any, scale: Any) -> tuple[Any, np.ndarray, float]:
    """The net on the reference kernels, theta in float64; or raise ArgumentError."""
    wanted = "a method that differentiates its inner loop and learns theta alone, such as MAML"
    known = isinstance(method, DifferentiatedLoop) and hasattr(net, "layers")
    known = known and len(method.init(net, np.zeros(net.num_params))) == net.num_params
    expect(known, "method", wanted, lambda: type(method).__name__)
    of_shape = isinstance(theta, np.ndarray) and theta.shape == (net.num_params,)
    expect(of_shape, "theta", f"shape ({net.num_params},)", lambda: described(theta))
    scale = check_positive_number("scale", scale)
    return net.with_kernels(reference()), theta.astype(float), scale
