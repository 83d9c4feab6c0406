"""Fitted numbers of the inner and the outer loop: step sizes, weight decay, a proximal
term, the factor of the Hessian, weights of query losses."""

from refmaml.doctor.mistakes.family import Family, Number, plain
from refmaml.doctor.mistakes.fitted_rules import DECAY, shown
from refmaml.doctor.mistakes.mistake import HESSIAN, fix
from refmaml.doctor.wrong_rules import DecayBefore

FACTORS = tuple(1.3**k for k in range(-16, 21))  # from 1/66 to 190
RATE = Number("c", (*FACTORS, *(-c for c in FACTORS[6:28:2])), -1e3, 1e3, simple=())
OWN = Number("c", tuple(1e-3 * 1.4**k for k in range(28)), 1e-9, 1e3, 1e-6, ())  # to 8.8
EACH = Number("c", (0.9,), -1e2, 1e2, simple=(0.0, 1.0))
ANCHOR = Number("anchor", (0.1, 2.0), -1e2, 1e2)
WEIGHT = Number("w", (0.1,), -1e2, 1e2)
FACTOR = Number("c", (0.7,), -1e2, 1e2)
NOT_DIFFERENTIATED = ", not differentiated"


def step_size():
    """A factor on every step size, or a step size of the function's own."""

    def name(c, own=None):
        if own is not None:
            return f"the inner step size is {shown(own)}, a constant of the function's own"
        return f"{length(c)}: the inner step size is multiplied by {shown(c)}"

    def advice(c, own=None):
        if own is not None:
            return fix("read the step size from problem.method: it differs from case to case")
        return fix("phi - inner_lr * gradient, the gradient that of a mean over the examples")

    return Family(
        "11", name, (RATE,), lambda case, c: {"rate": c}, advice, per="alpha", title=name("c")
    )


def own_step_size(method):
    """A step size of the function's own, where the method has one for each step."""
    if not isinstance(method.inner_lr, tuple):
        return []  # step_size() finds it
    one = step_size()

    def changes(case, c):
        return {"rate": tuple(c / a for a in case.method.inner_lr)}

    return [
        Family(
            "11",
            lambda c: one.name(1.0, own=c),
            (OWN,),
            changes,
            lambda c: one.fix(1.0, own=c),
            title=one.name(1.0, own="c"),
        )
    ]


def length(c):
    """How long a step is whose size is multiplied by c."""
    if isinstance(c, str):
        return "the step is c times too long"
    if c < 0:
        return "the step, in the wrong direction"
    return (
        f"the step, {plain(c)} times too long"
        if c > 1
        else f"the step, {plain(1 / c)} times too short"
    )


def step_sizes_that_differ(method):
    """A factor of its own on the step size of each step."""
    K = method.inner_steps
    if K < 2:
        return []

    def name(*factors):
        listed = ", ".join(map(shown, factors))
        return f"the inner step size differs from step to step: inner_lr times {listed}"

    def advice(*factors):
        lengths = getattr(method, "inner_lr", 1.0)
        lengths = lengths if isinstance(lengths, tuple) else (lengths,) * K
        listed = ", ".join(plain(c * a) for c, a in zip(factors, lengths, strict=True))
        own = ", ".join(map(plain, factors))
        return fix(
            f"if it is meant, declare it: step_factors=({own}), or inner_lr=[{listed}] and read "
            "problem.method.step_lengths[k]; else the same step size in every step"
        )

    changes = lambda case, *factors: {"rate": factors}  # noqa: E731
    title = name(*(f"c_{k + 1}" for k in range(K)))
    fractions = [0.4 + 0.6 * k / (K - 1) for k in range(K)]  # equal ones would be a saddle
    numbers = tuple(EACH._replace(starts=(fractions[-1 - k], fractions[k])) for k in range(K))
    family = Family("11", name, numbers, changes, advice, title=title, exchangeable=True)
    return [family]


def decay():
    """Weight decay in the inner loop, differentiated or not."""
    return [
        decay_family("", lambda case, d: {"decay": d}),
        decay_family(
            NOT_DIFFERENTIATED,
            lambda case, d: {"rule": DecayBefore(case.method.rule, d), "explicit": False},
        ),
    ]


def decay_family(tail, changes):
    """The Family of weight decay with the tail of its name."""

    def name(d, own=None):
        if own is not None:
            return f"parameters shrink by {shown(own)} in each inner step{tail}"
        return f"weight decay {shown(d)} in the inner loop{tail}"

    def advice(d, own=None):
        other = "no weight decay in the inner loop"
        if own is not None:
            return fix(other)
        return fix(
            f"if it is meant, declare it: rule=rm.SGD(weight_decay={shown(d)}); else {other}"
        )

    return Family("decay", name, (DECAY,), changes, advice, per="alpha", title=name("d"))


def anchors():
    """A proximal term in the inner loss, differentiated or not."""
    return [
        anchor_family("", lambda case, a: {"anchor": a}),
        anchor_family(NOT_DIFFERENTIATED, lambda case, a: {"anchor": a, "explicit": False}),
    ]


def anchor_family(tail, changes):
    """The Family of a proximal term with the tail of its name."""

    def name(a):
        return f"a proximal term (anchor/2) |phi - theta|^2 with anchor = {shown(a)}{tail}"

    def advice(a):
        return fix(f"if it is meant, declare it: anchor={shown(a)}; else no term in the inner loss")

    return Family("anchor", name, (ANCHOR,), changes, advice, title=name("a"))


def hessian_factor():
    """The Hessian times a number."""

    def name(c):
        return f"the Hessian counts {shown(c)} times"

    def changes(case, c):
        return {"curvature": c}

    return Family("1", name, (FACTOR,), changes, lambda c: HESSIAN, title=name("c"))


def loss_weights(method):
    """Query losses after every step, with weights whose sum is 1."""
    K = method.inner_steps

    def all_of(weights):
        return (*weights, 1.0 - sum(weights))

    def name(*weights):
        listed = ", ".join(map(plain, all_of(weights)))
        return f"query losses before, between and after the steps with weights {listed}"

    def advice(*weights):
        return fix("one query loss after the last step (MAML++: after each, with loss_weights)")

    changes = lambda case, *weights: {"weights": all_of(weights)}  # noqa: E731
    title = "query losses before, between and after the steps with weights w_0, ..., w_K"
    return Family("15", name, (WEIGHT,) * K, changes, advice, title=title)
