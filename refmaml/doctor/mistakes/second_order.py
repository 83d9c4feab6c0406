"""The second-order term: dropped, scaled, truncated, or unwanted."""

from refmaml.doctor.mistakes.layer_kernels import lost_second_derivatives
from refmaml.doctor.mistakes.mistake import HESSIAN, Mistake, fix
from refmaml.update_rules import Clip

DETACHED = fix(
    "let the inner gradients depend on the parameters: "
    "add -alpha H lam in every step on the way back",
    torch="torch.autograd.grad(..., create_graph=True) in the inner loop, "
    "no .detach(), .data or no_grad() there",
    jax="no lax.stop_gradient on the inner gradients or adapted parameters",
    numpy="lam = lam - alpha * H(phi_k) @ lam for every inner step k, from the last to the first",
)
AT = fix("keep phi_k of every step: its Hessian-vector product is taken there")
WHOLE_STEP = fix(
    "first-order methods take dphi_K/dtheta as I: stop the whole step, with its decay and "
    "its anchor, not only the gradient in it (where it is meant, it is a convention)",
    torch="detach the whole step, phi = phi - (alpha * d).detach(): weight decay and the "
    "anchor too, not only the gradient (where it is meant, it is a convention)",
)
FIRST_ORDER = "first-order: the second-order term is missing"


def gauss_newton():
    """A Gauss-Newton product where H v is meant."""
    name = "the Gauss-Newton matrix stands for the Hessian"
    return Mistake("1", name, {"product": "gauss_newton_product"}, HESSIAN)


def second_order(K):
    """What becomes of the second-order term of a method that has one."""
    mixed = "parameters that do not adapt lose their second-order term"
    return [
        Mistake("1", FIRST_ORDER, {"curvature": 0.0}, DETACHED, True),
        Mistake("1", "the Hessian counts twice", {"curvature": 2.0}, HESSIAN),
        Mistake("1", "the Hessian counts half", {"curvature": 0.5}, HESSIAN),
        Mistake("1", "the Hessian has the wrong sign", {"curvature": -1.0}, HESSIAN),
        gauss_newton(),
        *truncated(K),
        *other_points(K),
        Mistake("17", mixed, no_mixed_term, DETACHED),
        *lost_second_derivatives(),
    ]


def truncated(K):
    """Only the last inner steps are differentiated."""
    graph = fix("keep the graph of every inner step")
    name = "only the last {} of the inner steps {} differentiated"
    return [
        Mistake("14", name.format(last, "is" if last == 1 else "are"), {"back": last}, graph)
        for last in range(1, K)
    ]


def other_points(K):
    """One Jacobian for all steps, or H at other parameters than those of its step."""
    if K == 1:
        return [Mistake("14", "the Hessian is taken after the step", {"hessian_at": "next"}, AT)]
    once = {"jacobian": "once", "hessian_at": "start"}
    name = "one Jacobian for all steps: I - (the sum of the step sizes) H(theta)"
    places = {
        "start": "at the initial parameters, in every step",
        "end": "at the adapted parameters, in every step",
        "next": "one step late, at phi_{k+1}",
    }
    return [
        Mistake("14", name, once, fix("a Jacobian for each step: I - alpha H(phi_k)"), True),
        *(
            Mistake("14", f"the Hessian is taken {text}", {"hessian_at": place}, AT)
            for place, text in places.items()
        ),
    ]


def no_mixed_term(case):
    """No mixed second derivative; occurs where some parameters do not adapt."""
    adapting = case.method.adapting(case.net, case.theta)
    return None if adapting.all() else {"mixed": False}


def unwanted_second_order(method):
    """First-order methods: a second-order term, or that of decay and anchor."""
    name = "second-order, where first-order is meant"
    changes = {"curvature": 1.0, "explicit": True}
    found = [Mistake("1", name, changes, fix("detach the inner gradients"), True)]
    if explicit := explicit_terms(method):
        name = f"first-order, but {explicit} is differentiated: dphi_K/dtheta is not I"
        found.append(Mistake("1", name, {"explicit": True}, WHOLE_STEP, True))
    return found


def whole_step_detached(method):
    """First-order, and the derivatives of decay and anchor are missing too."""
    if not (explicit := explicit_terms(method)):
        return []
    name = f"{FIRST_ORDER}, and {explicit} is not differentiated either"
    return [Mistake("1", name, {"curvature": 0.0, "explicit": False}, DETACHED, True)]


def explicit_terms(method):
    """The terms of a step in which phi itself stands, in words; "" for none."""
    rule = method.rule
    while isinstance(rule, Clip):
        rule = rule.rule
    decay = "weight decay" if getattr(rule, "weight_decay", 0) else ""
    return " and ".join(filter(None, (decay, "the anchor" if method.anchor else "")))
