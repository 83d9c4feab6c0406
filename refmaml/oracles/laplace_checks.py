"""Rungs 1 to 6 for Laplace terms: log determinants, and LLAMA's meta-gradient."""

from dataclasses import replace
from math import sqrt

import numpy as np

from refmaml.execution import Sequential
from refmaml.layers import (
    MSE,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    Flatten,
    Linear,
    Softplus,
    Tanh,
)
from refmaml.methods import MAML, kronecker, laplace
from refmaml.methods.lanczos import lanczos
from refmaml.methods.table_entry import LAPLACE
from refmaml.oracles import cases, complex_step, dense, finite_differences
from refmaml.oracles import laplace as written_out
from refmaml.oracles.early_stopping_checks import early_stopping_checks
from refmaml.oracles.method_checks import describe, meta_gradient_check, method_terms
from refmaml.oracles.tolerance import Check, relative_error, tolerance

PRECISION = 0.7


def nets():
    """{name: net} with linear and convolutional layers of every kind."""
    return {
        "linear layers": Sequential([Linear(2, 4), Tanh(), Linear(4, 3)], CrossEntropy(), (2,)),
        "without biases": Sequential(
            [Linear(3, 4, bias=False), Softplus(), Linear(4, 2, bias=False)], MSE("sum"), (3,)
        ),
        "convolutions": Sequential(
            [
                Conv2d(1, 2, 3, padding=1),
                BatchNorm2d(2),
                Tanh(),
                Conv2d(2, 2, (2, 1), stride=2, groups=2, bias=False),
                Tanh(),
                Flatten(),
                Linear(8, 3),
            ],
            CrossEntropy("sum/K"),
            (1, 4, 4),
        ),
        "a dilation": Sequential(
            [
                Conv2d(1, 2, 2, dilation=2, padding=((1, 0), (0, 2))),
                Tanh(),
                AvgPool2d(2),
                Flatten(),
                Linear(8, 3),
            ],
            CrossEntropy(),
            (1, 5, 4),
        ),
    }


def start(net, seed=0):
    """(phi (2, P), batch): a point of its own for each of two tasks."""
    rng = np.random.default_rng(seed)
    phi = np.array([cases.start(net, rng) for _ in range(2)])
    return phi, cases.tasks_for(net, rng)


def terms(net, phi, batch, shift):
    """How many numbers go into one entry; times the condition of what is inverted."""
    return method_terms(replace_steps(1), net, batch) * net.num_params * shift**2


def replace_steps(K):
    """A method of K steps, whose passes are counted."""
    return MAML(0.1, K)


def condition(net, phi, batch, precision):
    """The largest condition number of H + tau I over the tasks."""
    tasks = zip(phi, batch.x_support, batch.y_support, strict=True)
    each = [dense.hessian(net, w, x[None], y[None]) for w, x, y in tasks]
    return max(float(np.linalg.cond(H + precision * np.eye(len(H)))) for H in each)


def row(rung, subject, quantity, oracle, value, truth, limit):
    """One comparison."""
    return Check(rung, subject, quantity, oracle, relative_error(value, truth), limit)


# ---- the term of one point -----------------------------------------------------------


def at_point(net, phi, batch, adapts=("*",)):
    """The Curvature of a net's support loss."""
    mask = net.mask(adapts).astype(float)
    return laplace.Curvature.of(net, phi, batch.x_support, batch.y_support, mask)


def gradient_by_steps(function, phi):
    """dL/dphi (T, P) of a function of rows (R, P) and the task of each row."""
    return np.array(
        [
            complex_step.gradient(lambda W, t=t: function(W, np.full(len(W), t)), phi[t])
            for t in range(len(phi))
        ]
    )


def hessian_checks(name, net, adapts=("*",), precision=3.0):
    """by_basis: H by the complex step on the gradient, dL by that on log det H."""
    phi, batch = start(net)
    at = at_point(net, phi, batch, adapts)
    found, n = laplace.by_basis(at, precision), len(at.places)
    limit = tolerance(float, terms(net, phi, batch, condition(net, phi, batch, precision)))
    x, y = batch.x_support, batch.y_support
    H = [dense.hessian(net, phi[t], x[t : t + 1], y[t : t + 1]) for t in range(len(phi))]
    block = np.array([h[np.ix_(at.places, at.places)] for h in H]) + precision * np.eye(n)
    value = np.linalg.slogdet(block)[1]
    yield row("2 Laplace", name, "log det(H + tau)", "dense algebra", found.value, value, limit)

    def written(W, t):
        return written_out.of_hessian(net, W, x[t], y[t], at.places, precision)

    truth = gradient_by_steps(written, phi)
    yield row("2 Laplace", name, "its gradient", "complex step", found.gradient, truth, limit)


def probe_checks(name, net, precision=3.0, probes=3):
    """by_probes with n products: dense algebra for the same probes."""
    phi, batch = start(net)
    at = at_point(net, phi, batch)
    T, n = phi.shape
    found = laplace.by_probes(at, precision, probes, n, seed=5)
    limit = tolerance(float, terms(net, phi, batch, condition(net, phi, batch, precision)))
    z = 2.0 * np.random.default_rng(5).integers(0, 2, (probes, n)) - 1
    values, truth = np.zeros(T), np.zeros(phi.shape)
    for t in range(T):
        x, y = batch.x_support[t : t + 1], batch.y_support[t : t + 1]
        h, V = np.linalg.eigh(dense.hessian(net, phi[t], x, y) + precision * np.eye(n))
        values[t] = np.mean([(V.T @ a) ** 2 @ np.log(h) for a in z])
        Az = np.array([V @ ((V.T @ a) / h) for a in z])

        def form(W, x=x, y=y, Az=Az):  # mean over probes of z' H(W) A z, A fixed
            B = len(W)
            H = written_out.hessians(net, W, x.repeat(B, axis=0), y.repeat(B, axis=0), np.arange(n))
            return np.einsum("pi,bij,pj->b", z, H, Az) / probes

        truth[t] = complex_step.gradient(form, phi[t])
    yield row("2 Laplace", name, "z' log(H + tau) z", "dense algebra", found.value, values, limit)
    yield row("2 Laplace", name, "D^3 f[z, A z]", "complex step", found.gradient, truth, limit)


def lanczos_check(n=12, shift=2.0):
    """log(H + tau) and (H + tau)^-1 of random matrices, one of them with rank 3."""
    rng = np.random.default_rng(0)
    H = rng.standard_normal((2, n, n))
    H = np.array([H[0] @ H[0].T / n, H[1, :, :3] @ H[1, :, :3].T / n])
    z = rng.standard_normal((2, n))
    found = lanczos(lambda v: np.einsum("rij,rj->ri", H, v), z, n)
    h, V = np.linalg.eigh(H)
    along = np.einsum("rij,ri->rj", V, z)
    forms = (along**2 * np.log(h + shift)).sum(axis=1)
    solved = np.einsum("rij,rj->ri", V, along / (h + shift))
    limit = tolerance(float, n**2) * float(np.linalg.cond(H[0] + shift * np.eye(n)))
    name, value = "Lanczos", found.quadratic_form(lambda a: np.log(a + shift))
    yield row("1 forward", name, "z' log(H + tau) z", "dense algebra", value, forms, limit)
    u, residual = found.solve(shift)
    yield row("1 forward", name, "(H + tau)^-1 z", "dense algebra", u, solved, limit)
    yield row("1 forward", name, "its residual", "0", residual, 0 * residual, limit)


def factor_checks(name, net, k):
    """Kronecker factors: written out, and the complex step through all passes."""
    phi, batch = start(net)
    x, y, everything = batch.x_support, batch.y_support, np.ones(net.num_params)
    args = x, y, everything, PRECISION
    value, gradient = kronecker.log_determinant(net.with_kernels(k), phi, *args)
    chosen = kronecker.counted(net, everything)
    # The condition number of a damped factor is at most 1 + |factor|/g.
    limit = tolerance(float, terms(net, phi, batch, 1 + 1 / sqrt(PRECISION)))

    def written(W, t):
        return written_out.of_factors(net, W, x[t], y[t], chosen, PRECISION)

    truth = written(phi, np.arange(len(phi)))
    yield row("2 K-FAC", name, "log det A (x) G", "written out", value, truth, limit)
    truth = gradient_by_steps(written, phi)
    yield row("2 K-FAC", name, "its gradient", "complex step", gradient, truth, limit)


# ---- meta-gradients ------------------------------------------------------------------


def settings():
    """[LLAMA]: each that the ladder checks, and some for nets of one kind."""
    return cases.methods_with(LAPLACE)


def richardson_check(method, net, theta, batch):
    """Rung 6: one directional derivative from values of the meta-objective alone."""
    v = np.random.default_rng(0).standard_normal(len(theta))
    v /= np.linalg.norm(v)

    def M(meta):
        phi = method.adapt(net, meta, batch.x_support, batch.y_support)
        adapting = method.adapting(net, phi)
        x, y = batch.x_support, batch.y_support
        term = written_out.term(net, method, phi, x, y, adapting)
        return (net.loss(phi, batch.x_query, batch.y_query) + method.weight * term).mean()

    value = method.meta_gradient(net, theta, batch).grad @ v
    error = relative_error(value, finite_differences.fourth_order(M, theta, v))
    limit = finite_differences.FOURTH_ERROR * np.sqrt(method_terms(method, net, batch))
    name = describe(method)
    return Check("6 other", name, "<dM/dmeta, v>", "finite differences", error, limit)


def llama_checks(kernels):
    """Meta-gradients against the complex step through inner loop and determinant."""
    known = nets()
    for method in settings():
        for name in ("linear layers", "convolutions"):
            net = known[name].with_kernels(kernels)
            if method.curvature != "kronecker" and net.num_params > 40:
                continue  # the oracle has P^2 products for each step
            phi, batch = start(net)
            check = meta_gradient_check(method, net, phi[0], batch)
            # A log det multiplies relative errors by up to the condition number.
            yield check._replace(subject=f"{check.subject}, {name}", tolerance=3 * check.tolerance)
    net = known["linear layers"].with_kernels(kernels)
    phi, batch = start(net)
    for curvature in ("hessian", "kronecker"):
        method = replace(settings()[0], curvature=curvature)
        yield richardson_check(method, net, phi[0], batch)


def laplace_checks(kernels):
    """Every check of this module."""
    yield from early_stopping_checks()
    yield from lanczos_check()
    known = nets()
    smooth = known["linear layers"]
    yield from hessian_checks("the Hessian, linear layers", smooth)
    yield from hessian_checks("the Hessian of the head", smooth, ("head",))
    steep = known["without biases"]
    yield from hessian_checks("the Hessian, without biases", steep, precision=20.0)
    yield from probe_checks("probes", smooth)
    for name, net in known.items():
        yield from factor_checks(name, net, kernels)
    yield from llama_checks(kernels)
