"""Fitted numbers of iMAML: lambda, damping, a Neumann series, iterations of CG."""

from refmaml.doctor.mistakes.family import Family, Number, plain
from refmaml.doctor.mistakes.fitted_rules import shown
from refmaml.doctor.mistakes.mistake import fix

SYSTEM = "solve (I + H(phi*) / lambda) u = grad g(phi*), all of it at phi*"
NO_DAMPING = fix("no damping in the system whose solution is the gradient")
DAMPING = Number("d", (0.1, 1.0), -0.9, 1e3)
ADDED = Number("e", (1.0, 10.0), -1e3, 1e4, 1e-2)
LAMBDA = Number("c", (2.0, 0.5, 10.0), 1e-3, 1e3, simple=())
CURVATURE = Number("c", (0.7, 2.0), -10.0, 10.0)


def damping():
    """((1 + d) I + H / (lambda + e)): d, or e, or both."""

    def name(d, e):
        return f"damping: ({one_plus(d)} I + H / ({lam_plus(e)}))"

    def one_plus(d):
        return f"(1 + {d})" if isinstance(d, str) else plain(1 + d)

    def lam_plus(e):
        return "lambda" if e == 0 else f"lambda + {shown(e)}"

    def family(numbers, both):
        return Family(
            "31",
            lambda *v: name(*both(*v)),
            numbers,
            lambda case, *v: damped(*both(*v)),
            lambda *v: NO_DAMPING,
            title=name(*both(*(n.name for n in numbers))),
        )

    return [
        family((DAMPING,), lambda d: (d, 0.0)),
        family((ADDED,), lambda e: (0.0, e)),
        family((DAMPING, ADDED), lambda d, e: (d, e)),
    ]


def damped(d, e):
    """The fields of Implicit for d and e."""
    return {"identity": 1.0 + d, "extra": e}


def regularization():
    """Another lambda in the system, in the inner problem, or in both."""
    places = [
        ("the linear system has {} lambda for lambda", ("outer",)),
        ("the inner problem has {} lambda for lambda", ("inner",)),
        ("{} lambda for lambda throughout", ("inner", "outer")),
    ]
    return [
        Family(
            "28",
            lambda c, own=None, n=name: n.format(shown(c)),
            (LAMBDA,),
            lambda case, c, f=fields: dict.fromkeys(f, c),
            lambda c, own=None: fix(f"minimise f(phi) + (lambda/2) |phi - theta|^2; {SYSTEM}"),
            title=name.format("c"),
        )
        for name, fields in places
    ]


def hessian_factor():
    """The Hessian times a number in the linear system."""

    def name(c):
        return f"the Hessian counts {shown(c)} times in the linear system"

    return Family(
        "1", name, (CURVATURE,), lambda case, c: {"curvature": c}, lambda c: fix(SYSTEM),
        title=name("c"),
    )  # fmt: skip


def fitted(method):
    """All families of iMAML with continuous numbers."""
    return [hessian_factor(), *damping(), *regularization()]
