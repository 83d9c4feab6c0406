"""Gradients of learned step sizes: dM/dA_k = -grad f(phi_k) * lam_{k+1}."""

from refmaml.doctor.mistakes.mistake import Mistake, fix

ADJOINT = fix("dM/dA = sum over steps of -grad f(phi_k) * lam_{k+1}")
FIRST_ORDER = "the step sizes' gradient is first-order"


def learned_step_sizes():
    """What goes wrong in the gradient of a learned step size."""
    sign = "the step sizes' gradient has the wrong sign"
    return [
        Mistake("18", FIRST_ORDER, {"rates": "query"}, ADJOINT),
        Mistake("18", sign, {"rates": "negative"}, ADJOINT),
        Mistake("18", "the step sizes have no gradient", {"rates": "zero"}, ADJOINT),
    ]


def single_step_of_sum(K):
    """A sum over inner steps of which one term is left; K > 1."""
    if K == 1:
        return []
    name = "the step sizes' gradient holds the {} inner step only"
    return [
        Mistake("18", name.format(which), {"rates": which}, ADJOINT) for which in ("first", "last")
    ]
