"""All kinds of mistakes, by the form of the function."""

from arithmetic import mapped
from displacement import Displacement
from functions import Loop, Recursion
from implicit import Implicit
from kind import WAY_BACK, Kind, drawn, fields, one_tensor, scaled, slip
from kinds_of_loops import AUTODIFF, FORWARD
from slip import Slip

# The recursion written out: the way back is wrong.
BACKWARD = [
    Kind(
        "H counts twice",
        slip(product=lambda Hv, *_: mapped(lambda a: 2 * a, Hv)),
        ("twice", "times"),
    ),
    Kind(
        "H counts c times",
        drawn(lambda u: Slip(product=lambda Hv, *_: mapped(lambda a: (0.2 + 0.6 * u) * a, Hv))),
        ("times", "half"),
    ),
    Kind("H has the wrong sign", slip(product=lambda Hv, *_: mapped(lambda a: -a, Hv)), ("sign",)),
    Kind("H is the identity", slip(product=lambda Hv, v, *_: v), (), WAY_BACK, False),
    Kind(
        "H after the step",
        slip(product=lambda Hv, v, at, lib: lib.product(dict(at[1]), at[2], at[3], v)),
        ("after the step", "one step late"),
    ),
    Kind(
        "H of the query set",
        slip(product=lambda Hv, v, at, lib: lib.product(at[0], at[4][2], at[4][3], v)),
        (),
        WAY_BACK,
        False,
    ),
    Kind(
        "H of the first tensor only",
        slip(
            product=lambda Hv, *_: {
                n: a * (1 if i == 0 else 0) for i, (n, a) in enumerate(Hv.items())
            }
        ),
        (),
        (*WAY_BACK, "adapt"),
        False,
    ),
    Kind(
        "a tensor of H v has the wrong sign",
        slip(product=one_tensor(lambda a, *_: -a)),
        (),
        WAY_BACK,
        False,
    ),
    Kind(
        "H v is rounded to three digits",
        slip(product=lambda Hv, *_: mapped(lambda a: (a * 1000 + 0.5) // 1 / 1000, Hv)),
        (),
        WAY_BACK,
        False,
    ),
    Kind(
        "way back in the wrong order",
        slip(back=lambda ks: ks[::-1]),
        (),
        # Its first step alone is right: the second is where it goes wrong.
        (*WAY_BACK, "1 step is right"),
        False,
    ),
    Kind(
        "way back misses the first step", slip(back=lambda ks: ks[:-1]), ("last", "differentiated")
    ),
    Kind("way back misses the last step", slip(back=lambda ks: ks[1:]), ("step",), WAY_BACK, False),
    Kind("no way back", fields(order=1), ("first-order",)),
]

IMPLICIT = [
    Kind("lambda missing in the system", fields(system=lambda v, Hv, s: s * v + Hv), ("lambda",)),
    Kind(
        "half lambda in the system",
        fields(system=lambda v, Hv, s: v + 2 * Hv / s),
        ("lambda", "twice", "half"),
    ),
    Kind("wrong sign in the system", fields(system=lambda v, Hv, s: v - Hv / s), ("sign",)),
    Kind("damped", fields(system=lambda v, Hv, s: 1.3 * v + Hv / s), ("damp", "identity")),
    Kind(
        "H left out",
        fields(system=lambda v, Hv, s: v),
        ("first-order", "no linear", "identity", "without"),
    ),
    Kind("no proximal term", fields(inner=lambda p, t, s: 0 * p), ("proximal",)),
    Kind(
        "twice the proximal term",
        fields(inner=lambda p, t, s: 2 * s * (p - t)),
        ("lambda", "proximal"),
    ),
    Kind("H at the start", fields(at="start"), ("at theta", "initial", "start", "unadapted")),
    Kind(
        "query gradient at the start",
        fields(query_at="start"),
        ("theta", "unadapted", "initial", "start"),
    ),
    Kind("one CG iteration", fields(CG=1), ("iteration", "stopped", "conjugate")),
    Kind("two CG iterations", fields(CG=2), ("iteration", "stopped", "conjugate")),
    Kind("query is support", slip(query=lambda t, lib: t[:2]), ("support set",)),
    Kind("adapts on the query set", slip(support=lambda t, k, lib: t[2:4]), ("query set",)),
    Kind(
        "cubed term in the system",
        fields(system=lambda v, Hv, s: v + Hv / s + 0.1 * v * v),
        (),
        ("linear system", "product", "not linear"),
        False,
    ),
]

REPTILE = [
    Kind("wrong sign", fields(result=lambda theta, phi: phi - theta), ("-1",)),
    Kind("phi_K itself", fields(result=lambda theta, phi: phi), ("adapted parameters", "phi")),
    Kind("step too many", slip(steps=lambda K: K + 1), ("many",)),
    Kind("adapts on the query set", slip(support=lambda t, k, lib: t[2:4]), ("query",)),
    Kind("twice the step", slip(rate=scaled(2)), ("step size", "twice", "large", "long")),
    Kind("gradient at the start", slip(point=lambda phi, start, k: start), ("initial parameters",)),
    Kind(
        "carried",
        slip(start=lambda theta, last, lib: dict(theta if last is None else last)),
        ("starts where", "task"),
    ),
]

RULES = [
    Kind("state detached", fields(detached=True), ("detached", "not differentiated", "constant"))
]

# First-order MAML with weight decay in its rule.
DECAY = [
    Kind(
        "only the gradient is stopped", fields(stopped_gradient=True), ("decay is differentiated",)
    )
]

BY_FORM = {
    Loop: FORWARD + AUTODIFF,
    Recursion: FORWARD + BACKWARD,
    Implicit: IMPLICIT,
    Displacement: REPTILE,
}
