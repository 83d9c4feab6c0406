"""All mistakes of iMAML: the inner problem, the linear system and its solver."""

from refmaml.doctor.mistakes.layer_kernels import lost_second_derivatives
from refmaml.doctor.mistakes.mistake import ROLES, Mistake, fix
from refmaml.doctor.mistakes.second_order import gauss_newton
from refmaml.doctor.mistakes.sets_and_tasks import only_one_task, swapped_sets

SYSTEM = fix("solve (I + H(phi*) / lambda) u = grad g(phi*), all of it at phi*")
HALF = fix("(lambda/2) |phi - theta|^2, with the half")
ONCE = fix("(lambda/2) |phi - theta|^2, once")
PROXIMAL = fix("minimise f(phi) + (lambda/2) |phi - theta|^2")


def imaml(method):
    """Every mistake of iMAML."""
    activation, pooling, softmax = lost_second_derivatives()
    return [
        *query_gradient(),
        *sets(),
        *only_one_task(),
        softmax,
        pooling,
        activation,
        Mistake("27", "the inner problem lacks its proximal term", {"prox": False}, PROXIMAL, True),
        *regularization(),
        *hessian(),
    ]


def query_gradient():
    """The right-hand side in place of the solution, or at the wrong parameters."""
    unsolved = "the query gradient at phi* itself, no linear system solved (first-order)"
    start = "the query gradient at the initial parameters"
    both = {"query_at": "start", "curvature": 0.0}
    return [
        Mistake("1", unsolved, {"curvature": 0.0}, SYSTEM, True),
        Mistake("5", start, {"query_at": "start"}, SYSTEM),
        Mistake("5", f"{start}, no linear system solved", both, SYSTEM),
    ]


def sets():
    """Support and query sets in the wrong place."""
    query, support = {"query": "support"}, {"support": "query"}
    return [
        Mistake("6", "the query loss is measured on the support set", query, ROLES, True),
        Mistake("6", "the inner problem is on the query set", support, ROLES, True),
        swapped_sets(),
    ]


def regularization():
    """Another lambda in the linear system, in the inner problem, or in both."""
    own = "lambda is a constant of the function's own, not problem.method.regularization"
    read = fix("read lambda from problem.method: it differs from case to case")
    system, inner = "the linear system has {} for lambda", "the inner problem has {} for lambda"
    factors = (("2 lambda", 2.0, HALF), ("lambda / 2", 0.5, ONCE))
    return [
        *(Mistake("28", system.format(t), {"outer": c}, SYSTEM, True) for t, c, _ in factors),
        *(Mistake("28", inner.format(t), {"inner": c}, advice, True) for t, c, advice in factors),
        *(
            Mistake("28", f"{t} for lambda throughout", {"inner": c, "outer": c}, advice)
            for t, c, advice in factors
        ),
        Mistake("28", own, constant_regularization, read),
    ]


def constant_regularization(case):
    """The lambda that the user named, where the case has another one."""
    named = getattr(case.given, "regularization", case.method.regularization)
    factor = named / case.method.regularization
    return {"inner": factor, "outer": factor} if factor != 1 else None


def hessian():
    """H with the wrong sign or factor, another matrix, or H at the wrong parameters."""
    sign = "the Hessian has the wrong sign in the linear system"
    twice = "the Hessian counts twice in the linear system, and so does I"
    start = "the Hessian is taken at the initial parameters"
    return [
        Mistake("30", sign, {"curvature": -1.0}, SYSTEM),
        Mistake("1", twice, {"curvature": 2.0, "identity": 2.0}, SYSTEM),
        gauss_newton(),
        Mistake("5", start, {"at": "start"}, SYSTEM),
    ]
