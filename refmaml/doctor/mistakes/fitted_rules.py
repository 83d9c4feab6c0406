"""Update rules with fitted numbers, where the method has another rule or none.

Each rule in its forms: right; with its state detached; with a constant root or clipping
factor; first-order.
"""

from dataclasses import replace

from refmaml.doctor.mistakes.family import Family, Number, plain
from refmaml.doctor.mistakes.mistake import fix
from refmaml.doctor.wrong_rules import (
    CONSTANT_ROOT,
    Averaged,
    ConstantClip,
    ConstantTorchClip,
    DetachedState,
    EarlyEps,
    EarlyRootAdam,
    ExactClip,
    PassedClip,
    Uncorrected,
)
from refmaml.update_rules import SGD, Adagrad, Adam, AdamW, Clip, RMSprop, Sign

MOMENTUM = Number("momentum", (0.9, 0.3), 0.0, 1.0)
DECAY = Number("weight_decay", (1e-2, 1.0), -10.0, 10.0, 1e-4)
BETA1 = Number("beta1", (0.9, 0.5), 0.0, 0.9999, simple=(0.0, 0.9))
BETA2 = Number("beta2", (0.999, 0.9), 0.0, 0.99999, simple=(0.999,))
ALPHA = Number("alpha", (0.99, 0.9, 0.5), 0.0, 0.99999, simple=(0.99,))
EPS = Number("eps", (1e-8, 1e-3), 0.0, 10.0, 1e-7)
EPS_ROOT = Number("eps_root", (1e-8, 1e-3), 0.0, 10.0, 1e-9)
LIMIT = Number("norm", (1.0, 0.1, 10.0, 0.01), 1e-6, 1e6)
ENTRY = Number("value", (0.1, 1.0, 0.01), 1e-6, 1e6)
FIRST_ORDER = "first-order"
DETACHED_STATE = "its state detached"
CONSTANT = "its denominator not differentiated"
NOT_DIFFERENTIATED = "the clipping not differentiated"
BUFFER = "its buffer detached"
BACKWARD = (FIRST_ORDER, DETACHED_STATE, CONSTANT, NOT_DIFFERENTIATED, BUFFER)
GRAPH = "differentiate through it: no detached state, root or factor"


def text_of(rule):
    """rm.SGD(momentum=0.9): a rule with the numbers that are not its defaults."""
    cls = next(
        c for c in type(rule).__mro__ if c in (SGD, Adam, AdamW, RMSprop, Adagrad, Clip, Sign)
    )
    default = {} if cls is Clip else vars(cls())
    parts = []
    for name, value in vars(rule).items():
        if name == "rule":
            parts += [] if value.plain else [text_of(value)]
        elif value is not None and value is not False and value != default.get(name):
            parts.append(f"{name}={printed(value)}")
    return f"rm.{cls.__name__}({', '.join(parts)})"


def printed(value):
    """A field's value as text."""
    if isinstance(value, tuple):
        return f"({', '.join(map(printed, value))})"
    return plain(value) if isinstance(value, float) else repr(value)


def declared(rule, otherwise):
    """The fix: declare the rule where it is meant, else another one."""
    return fix(f"if it is meant, declare it: rule={text_of(rule)}; else {otherwise}")


def family(row, what, numbers, rule_of, form="", wrap=lambda rule: rule, usual=""):
    """The Family of a rule in one form.

    what      the rule's name and numbers in words: values -> text
    rule_of   values -> the right rule
    form      what is wrong with it; wrap: rule -> the rule with that
    usual     what the method has in its place
    """
    first = {"curvature": 0.0, "explicit": False} if form == FIRST_ORDER else {}
    tail = f", {form}" if form else ""

    def advice(*values):
        advice = declared(rule_of(*values), usual)
        return fix(f"{advice['']}; {GRAPH}") if form in BACKWARD else advice

    return Family(
        row,
        lambda *values: what(*values) + tail,
        numbers,
        lambda case, *values: {"rule": wrap(rule_of(*values)), **first},
        advice,
        title=what(*(n.name for n in numbers)) + tail,
        backward=form in BACKWARD,
    )


def shown(value):
    """A number, or in a list of mistakes its name."""
    return value if isinstance(value, str) else plain(value)


def usual(method):
    """What the inner loop of a method does: as advice."""
    rule = getattr(method, "rule", None)
    if rule is None or rule.plain:
        return "plain gradient descent in the inner loop"
    return f"the method's own {text_of(rule)}"


# ---- momentum and weight decay -------------------------------------------------------


def momentum(method):
    """SGD with momentum, Nesterov's, an average, and weight decay beside it."""
    instead = usual(method)
    kinds = [
        ("momentum {} in the inner loop", (MOMENTUM,), lambda mu: SGD(mu)),
        (
            "Nesterov momentum {} in the inner loop",
            (MOMENTUM._replace(low=1e-3),),
            lambda mu: SGD(mu, nesterov=True),
        ),
        (
            "momentum {} as an average, m = mu m + (1 - mu) g, in the inner loop",
            (MOMENTUM,),
            lambda mu: Averaged(mu, mu),
        ),
    ]
    decayed = [
        (f"{name.replace(' in the', ' and weight decay {} in the')}", (*numbers, DECAY), with_decay)
        for (name, numbers, with_decay) in [
            (kinds[0][0], kinds[0][1], lambda mu, d: SGD(mu, weight_decay=d)),
            (kinds[1][0], kinds[1][1], lambda mu, d: SGD(mu, nesterov=True, weight_decay=d)),
        ]
    ]
    forms = [("", lambda rule: rule), (BUFFER, DetachedState), (FIRST_ORDER, lambda rule: rule)]
    return [
        family(
            "26", lambda *v, n=name: n.format(*map(shown, v)), numbers, rule, form, wrap, instead
        )
        for name, numbers, rule in kinds + decayed
        for form, wrap in forms
    ]


# ---- Adam and its kind ---------------------------------------------------------------


def named_numbers(cls, fields):
    """values -> "betas=(0.9, 0.999), eps=1e-8"."""

    def text(*values):
        given = [f"{name}={shown(v)}" for name, v in zip(fields, values, strict=True)]
        return f"{cls} in the inner loop: {', '.join(given)}"

    return text


def adaptive(method):
    """Adam, AdamW, RMSprop and Adagrad: eps, then eps_root, then everything else."""
    instead = usual(method)
    kinds = [
        ("24", "Adam", (EPS,), lambda e: Adam(eps=e)),
        ("24", "Adam", (EPS, EPS_ROOT), lambda e, r: Adam(eps=e, eps_root=r)),
        ("24", "Adam", (BETA1, BETA2, EPS), lambda a, b, e: Adam((a, b), e)),
        ("24", "Adam", (BETA1, BETA2, EPS, EPS_ROOT), lambda a, b, e, r: Adam((a, b), e, r)),
        ("24", "AdamW", (EPS, DECAY), lambda e, d: AdamW(eps=e, weight_decay=d)),
        ("24", "Adam", (EPS, DECAY), lambda e, d: Adam(eps=e, weight_decay=d)),
        ("24", "RMSprop", (ALPHA, EPS), lambda a, e: RMSprop(a, e)),
        ("24", "RMSprop", (ALPHA, EPS, EPS_ROOT), lambda a, e, r: RMSprop(a, e, r)),
        ("24", "Adagrad", (EPS._replace(starts=(1e-10, 1e-3)),), lambda e: Adagrad(eps=e)),
    ]
    found = []
    for row, name, numbers, rule in kinds:
        what = named_numbers(name, [n.name for n in numbers])
        for form, wrap in forms_of(name, numbers):
            found.append(family(row, what, numbers, rule, form, wrap, instead))
    return found


def forms_of(name, numbers):
    """[(what is wrong with the rule, rule -> the rule with that)]."""
    forms = [
        ("", lambda rule: rule),
        (DETACHED_STATE, DetachedState),
        (CONSTANT, constant_root),
        (FIRST_ORDER, lambda rule: rule),
    ]
    if name == "Adam" and DECAY not in numbers:
        forms.append(("without bias correction", Uncorrected))
        forms.append(("eps added before the bias correction", EarlyEps))
    if name == "Adam" and EPS_ROOT in numbers:
        forms.append(("eps_root added before the bias correction", early_root))
    return forms


def early_root(rule):
    """Adam with eps_root added before the bias correction."""
    return EarlyRootAdam(**vars(rule))


def constant_root(rule):
    """The same rule with a denominator that counts as a constant."""
    return CONSTANT_ROOT[type(rule)](**vars(rule))


# ---- clipping ------------------------------------------------------------------------


def clipping(method):
    """Clipping by norm, of all parameters or of each array, and by value."""
    inner = getattr(method, "rule", SGD())
    inner = inner.rule if isinstance(inner, Clip) else inner
    instead = usual(method)
    norm, own = "the inner gradients are clipped to norm {}", ", each array by its own norm"
    eps = ", PyTorch's 1e-6 added to it"
    forms = [
        (norm + eps, Clip, False, ""),
        (norm + eps, ConstantTorchClip, False, NOT_DIFFERENTIATED),
        (norm, ExactClip, False, ""),
        (norm, ConstantClip, False, NOT_DIFFERENTIATED),
        (norm + own + eps, Clip, True, ""),
        (norm + own + eps, ConstantTorchClip, True, NOT_DIFFERENTIATED),
        (norm + own, ExactClip, True, ""),
        (norm + own, ConstantClip, True, NOT_DIFFERENTIATED),
    ]
    entries = "the inner gradients' entries are clipped to [-{0}, {0}]"
    return [
        *(limited(name, cls, each, form, inner, instead) for name, cls, each, form in forms),
        by_value(entries, Clip, "", inner, instead),
        by_value(entries, PassedClip, NOT_DIFFERENTIATED, inner, instead),
    ]


def limited(name, cls, per_tensor, form, inner, instead):
    """The Family of clipping by norm."""
    right = Clip(inner, norm=1.0, per_tensor=per_tensor)
    kind = cls(inner, norm=1.0, per_tensor=per_tensor)
    return family(
        "26",
        lambda c: name.format(shown(c)),
        (LIMIT,),
        lambda c: replace(right, norm=c),
        form,
        lambda rule: replace(kind, norm=rule.norm),
        instead,
    )


def by_value(name, cls, form, inner, instead):
    """The Family of clipping entry by entry."""
    return family(
        "26",
        lambda c: name.format(shown(c)),
        (ENTRY,),
        lambda c: Clip(inner, value=c),
        form,
        lambda rule: cls(inner, value=rule.value),
        instead,
    )
