"""LLAMA's Laplace term with every choice a value of `Loop.laplace`.

"method"       eta d log det(H + tau I)/dphi_K, added to lam_K
"none"         no gradient
"direct"       added to lam_0: it does not go back through the inner loop
"at theta"     the curvature at phi_0, added to lam_0
"query"        the curvature of the query loss
"negative", "half", "twice"  the same with another factor
"without tau"  log |det H|
"diagonal"     the sum of log(H_ii + tau)
"squared tau"  Kronecker factors damped by tau in place of its root
"inputs alone", "adjoints alone"  one Kronecker factor of each layer is a constant
"""

from dataclasses import replace

import numpy as np

from refmaml.methods import kronecker, laplace

FACTORS = {"none": 0.0, "negative": -1.0, "half": 0.5, "twice": 2.0}
AT_START = ("direct", "at theta")
RCOND = 1e-9  # of an H that can be inverted: a row or column less is rounding alone


def laplace_gradients(case, loop, run):
    """(what is added to lam_K, what is added to lam_0), (T, P) each or 0."""
    if not hasattr(case.method, "laplace_term") or loop.laplace == "none":
        return 0, 0
    phi = run.phis[0] if loop.laplace == "at theta" else run.phis[-1]
    gradient = FACTORS.get(loop.laplace, 1.0) * case.method.weight * term(case, loop.laplace, phi)
    return (0, gradient) if loop.laplace in AT_START else (gradient, 0)


def term(case, variant, phi):
    """The derivative of the variant's term in phi, (T, P); kept for the next call."""
    b = case.batch
    x, y = (b.x_query, b.y_query) if variant == "query" else (b.x_support, b.y_support)
    phi = np.broadcast_to(phi, (len(x), case.net.num_params))
    kind = variant if variant in OTHERS else "method"
    key = kind, variant == "query", phi.tobytes()
    if key not in case.laplace_terms:
        case.laplace_terms[key] = OTHERS.get(kind, of_method)(case, phi, x, y)
    return case.laplace_terms[key]


def of_method(case, phi, x, y):
    """The method's own term."""
    return case.method.laplace_term(case.net, phi, x, y)[1]


def curvature(case, phi, x, y):
    """The support loss of laplace.py, and H (T, n, n)."""
    at = laplace.Curvature.of(case.net, phi, x, y, case.method.adapting(case.net, phi))
    return at, at.hessian()


def summed(at, A):
    """sum_i D^3 f[e_i, A e_i] (T, P) of symmetric A (T, n, n)."""
    out, n = np.zeros(at.phi.shape), len(at.places)
    for tasks, i in laplace.pairs(len(at.x), n):
        np.add.at(out, tasks, at.third(tasks, np.eye(n)[i], A[tasks, i]))
    return out


def without_tau(case, phi, x, y):
    """tr(H^-1 dH): that of log |det H|."""
    at, H = curvature(case, phi, x, y)
    return summed(at, np.linalg.inv(H))


def of_diagonal(case, phi, x, y):
    """The sum of dH_ii / (H_ii + tau)."""
    at, H = curvature(case, phi, x, y)
    tau = case.method.precision
    return summed(at, np.array([np.diag(1 / (np.diag(h) + tau)) for h in H]))


def squared_tau(case, phi, x, y):
    """The factors' damping g is tau, and not its root."""
    wrong = replace(case.method, precision=case.method.precision**2)
    return wrong.laplace_term(case.net, phi, x, y)[1]


def one_factor(inputs):
    """The term with a constant G (inputs=True) or a constant A in each layer."""

    def gradient(case, phi, x, y):
        method, net = case.method, case.net
        adapting = method.adapting(net, phi)
        at = kronecker.pass_with_factors(net, phi, x, y, adapting, method.precision)
        dx = {i: layer.dx for i, layer in at.factors.items()} if inputs else {}
        ddy = {} if inputs else {i: layer.ddy for i, layer in at.factors.items()}
        return kronecker.injected_pass(at.net, at.primal, ddy, dx)

    return gradient


OTHERS = {
    "without tau": without_tau,
    "diagonal": of_diagonal,
    "squared tau": squared_tau,
    "inputs alone": one_factor(True),
    "adjoints alone": one_factor(False),
}


def invertible(case):
    """Whether H at phi_K of the right inner loop is far from singular in every task."""
    b = case.batch
    phi = case.method.adapted(case.net, case.theta, b.x_support, b.y_support)
    _, H = curvature(case, phi, b.x_support, b.y_support)
    return bool((1 / np.linalg.cond(H) > RCOND).all())
