"""Mistakes of LLAMA's Laplace term: its gradient, its matrix, its factor."""

from refmaml.doctor.laplace_variants import invertible
from refmaml.doctor.mistakes.mistake import Mistake, fix

GRADIENT = fix(
    "differentiate log det(H + tau I) in phi_K: sum_i D^3 f[e_i, (H + tau I)^-1 e_i], added to "
    "lam_K with eta; a clamped determinant (det.clamp(min=1e-40)) has no gradient",
    torch="build H with create_graph=True, and take torch.linalg.slogdet, not "
    "torch.log(torch.det(H).clamp(min=...)), whose gradient is 0 where det underflows",
    jax="jax.hessian of the loss, then jnp.linalg.slogdet; no lax.stop_gradient on H",
)
THROUGH = fix("add eta d log det/dphi_K to lam_K, before the inner loop is differentiated")
PLACE = fix("the curvature is that of the support loss at phi_K")
MATRIX = fix("log det(H + tau I): all of H, and tau on its diagonal")
FACTOR = fix("M = g(phi_K) + eta log det(H + tau I)")
KRONECKER = fix("A + g I and G + g I with g = sqrt(tau), and both depend on the parameters")


def laplace_term(method):
    """What becomes of the term of a LLAMA."""
    name = "the Laplace term has no gradient: detached, or its determinant is clamped"
    through = "the Laplace term's gradient is not carried back through the inner loop"
    theta = "the Laplace term takes the curvature at theta, not at the adapted parameters"
    found = [
        Mistake("45", name, {"laplace": "none"}, GRADIENT, True),
        Mistake("45", through, {"laplace": "direct"}, THROUGH, True),
        Mistake("46", theta, {"laplace": "at theta"}, PLACE),
        Mistake("46", "the Laplace term is that of the query loss", {"laplace": "query"}, PLACE),
        Mistake("47", "the Laplace term has the wrong sign", {"laplace": "negative"}, FACTOR),
        Mistake("47", "the Laplace term counts half", {"laplace": "half"}, FACTOR),
        Mistake("47", "the Laplace term counts twice", {"laplace": "twice"}, FACTOR),
    ]
    return found + (of_factors() if method.curvature == "kronecker" else of_hessian())


def of_hessian():
    """The wrong matrix under the determinant."""
    diagonal = "the Laplace term has the diagonal of the Hessian alone"
    return [
        Mistake("46", "the Laplace term has no tau: log |det H|", no_tau, MATRIX),
        Mistake("46", diagonal, {"laplace": "diagonal"}, MATRIX),
    ]


def no_tau(case):
    """log |det H|; a number where H is not singular, as a softmax's bias makes it."""
    return {"laplace": "without tau"} if invertible(case) else None


def of_factors():
    """Wrong Kronecker factors."""
    damped = "the Kronecker factors are damped by tau, not by its root"
    inputs = "the Kronecker factors of the outputs are constants"
    adjoints = "the Kronecker factors of the inputs are constants"
    return [
        Mistake("46", damped, {"laplace": "squared tau"}, KRONECKER),
        Mistake("45", inputs, {"laplace": "inputs alone"}, KRONECKER),
        Mistake("45", adjoints, {"laplace": "adjoints alone"}, KRONECKER),
    ]
