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
        *learned_through(),
    ]


def learned_through():
    """A step size that is a function of what is learned, where the method declares
    none; or the other way round."""
    text = "the step sizes' gradient is that of raw, times {0}'(raw): a step size is {0}(raw)"
    found = [
        Mistake("18", text.format(name), other_function(name), declare(name))
        for name in ("exp", "softplus", "sigmoid", "square")
    ]
    plain = "the step sizes' gradient is that of the step size, without the factor of its function"
    chain = fix("multiply dM/dA by f'(raw), or leave learned_through out")
    return [*found, Mistake("18", plain, other_function("identity"), chain)]


def declare(name):
    """The fix of step sizes that are a function of raw."""
    return fix(
        f'if it is meant, declare it: learned_through={{"inner_lr": "{name}"}}; else divide by '
        f"{name}'(raw), which gives the gradient of the step size itself"
    )


def other_function(name):
    """case -> the step sizes are learned through another function than the case has."""
    return lambda case: (
        {"through": name} if name != (case.step_sizes_through or "identity") else None
    )


def single_step_of_sum(K):
    """A sum over inner steps of which one term is left; K > 1."""
    if K == 1:
        return []
    name = "the step sizes' gradient holds the {} inner step only"
    return [
        Mistake("18", name.format(which), {"rates": which}, ADJOINT) for which in ("first", "last")
    ]
