"""Mistakes in the update rule or the proximal term that the method itself has."""

from dataclasses import replace

import numpy as np

from refmaml.doctor.mistakes.mistake import Mistake, fix
from refmaml.doctor.wrong_rules import (
    CONSTANT_ROOT,
    Averaged,
    ConstantClip,
    ConstantTorchClip,
    DecayAfter,
    DecayBefore,
    DetachedState,
    EarlyEps,
    ExactClip,
    LateCorrection,
    PassedClip,
    PassedSign,
    Uncorrected,
    name_of,
)
from refmaml.update_rules import SGD, Adam, AdamW, Clip, Sign, UpdateRule

STATE = fix(
    "carry the adjoint of the rule's state from step to step, beside that of phi",
    torch="no .detach(), .data or no_grad() on the momentum buffer or the moments; "
    "torch.optim keeps no graph",
    jax="no lax.stop_gradient on the optimiser's state",
)

DECLARE_SIGN = fix(
    "phi - alpha * gradient; if signs are meant, method=rm.MAML(..., rule=rm.Sign())"
)

CORRECTION = fix("m / (1 - b1^t) and v / (1 - b2^t), t = 1 in the first step of each task")


def declared_rule(method):
    """Another rule than the method's, its state detached, no proximal term."""
    found, name = [], name_of(method.rule)
    if method.rule.plain:
        signs = "the inner steps take the sign of the gradient (Sign-MAML)"
        found.append(Mistake("rule", signs, {"rule": Sign()}, DECLARE_SIGN))
    else:
        plain = f"the inner loop is plain gradient descent, without the method's {name}"
        found.append(Mistake("rule", plain, {"rule": UpdateRule()}, fix("use problem.method.rule")))
    if method.rule.init(np.zeros((1, 1))):
        detached = f"the state of {name} is detached: no derivative passes from step to step"
        carried = f"the state of {name} is carried from task to task"
        found += [
            Mistake("rule", detached, {"rule": DetachedState(method.rule)}, STATE, True),
            Mistake("25", carried, {"carry": True}, fix("a fresh optimiser for every task")),
        ]
    found += [
        Mistake("rule", text, {"rule": rule}, advice)
        for text, rule, advice in [*wrong_forms(method.rule), *wrong_clipping(method.rule)]
    ]
    if method.anchor:
        term = fix("add anchor (phi - theta) to the inner gradient")
        found.append(Mistake("anchor", "the term with anchor is missing", {"anchor": 0.0}, term))
    return found


def wrong_forms(rule):
    """[(name, wrong rule, fix)] of a declared rule, also inside clipping."""
    if isinstance(rule, Clip):
        return [
            (name, replace(rule, rule=wrong), advice)
            for name, wrong, advice in wrong_forms(rule.rule)
        ]
    found, name = [], name_of(rule)
    if type(rule) in CONSTANT_ROOT:
        constant = f"the second moment of {name} is detached: its denominator is a constant"
        found.append((constant, CONSTANT_ROOT[type(rule)](**vars(rule)), STATE))
        found += moved_eps(rule)
    if isinstance(rule, Sign):
        text = "the sign counts as the identity in the derivative (straight-through)"
        found.append((text, PassedSign(), fix("the derivative of sign(g) is 0")))
    if isinstance(rule, Adam):
        found += [
            (f"{name} without its bias correction", Uncorrected(rule), CORRECTION),
            (
                f"{name}'s bias correction counts one step too many",
                LateCorrection(rule),
                CORRECTION,
            ),
        ]
    if isinstance(rule, SGD) and rule.momentum and not rule.nesterov:
        average = Averaged(rule.momentum, rule.momentum, weight_decay=rule.weight_decay)
        text = "momentum is an average, m = mu m + (1 - mu) g"
        found.append((text, average, fix("m = mu m + g, as torch.optim.SGD has it")))
    return found + moved_decay(rule)


def moved_eps(rule):
    """eps and eps_root exchanged; Adam's eps before the bias correction."""
    found = []
    if rule.eps and not rule.eps_root:
        inside = replace(rule, eps=0.0, eps_root=rule.eps)
        found.append(("eps is inside the root", inside, fix("sqrt(v) + eps, eps outside")))
    if rule.eps_root:
        outside = replace(rule, eps=rule.eps_root, eps_root=0.0)
        advice = fix("sqrt(v + eps_root), inside the root")
        found.append(("eps_root is outside the root", outside, advice))
    if isinstance(rule, Adam) and rule.eps:
        text = "eps is added before the bias correction"
        advice = fix("sqrt(v / (1 - b2^t)) + eps, the correction first")
        found.append((text, EarlyEps(rule), advice))
    return found


def moved_decay(rule):
    """Weight decay on the other side of the moments or of the momentum."""
    decay = getattr(rule, "weight_decay", 0.0)
    if not decay:
        return []
    if isinstance(rule, AdamW):
        text = "weight decay passes through the moments (Adam's, not AdamW's)"
        return [(text, Adam(**vars(rule)), fix("phi - A wd phi - A mh / D: beside the moments"))]
    text = f"weight decay is beside {name_of(rule)}, not in its gradient"
    beside = DecayAfter(replace(rule, weight_decay=0.0), decay)
    return [(text, beside, fix("g + wd phi before everything else"))]


def wrong_clipping(rule):
    """[(name, wrong rule, fix)] of declared clipping."""
    if not isinstance(rule, Clip):
        return []
    found = []
    if not rule.rule.plain:
        found.append(("the gradients are not clipped", rule.rule, fix("clip before the rule")))
    through = fix(
        "differentiate the factor too",
        torch="no .detach() or .item() on the norm, and no clip_grad_norm_, which writes .grad "
        "in place",
    )
    constant = ConstantTorchClip if rule.norm is not None else PassedClip
    constant = ConstantClip if isinstance(rule, ExactClip) else constant
    text = "the clipping factor is not differentiated"
    found.append((text, constant(**vars(rule)), through))
    if rule.norm is not None:
        other = "each array is clipped by its own norm"
        if rule.per_tensor:
            other = "all arrays are clipped by their common norm"
        changed = replace(rule, per_tensor=not rule.per_tensor)
        found.append((other, changed, fix(f"per_tensor={rule.per_tensor}")))
    decay = getattr(rule.rule, "weight_decay", 0.0)
    if decay:
        before = DecayBefore(replace(rule, rule=replace(rule.rule, weight_decay=0.0)), decay)
        found.append(("weight decay is clipped too", before, fix("clip, then add wd phi")))
    return found
