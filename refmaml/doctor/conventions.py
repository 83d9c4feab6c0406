"""What two right implementations of one rule may do differently: conventions.

An answer that is right under another convention of the declared rule is right; a remark
says which convention it follows.
"""

from dataclasses import replace

from refmaml.doctor.wrong_rules import EarlyRootAdam, EarlyRootAdamW, ExactClip
from refmaml.update_rules import Adam, AdamW, Clip

EARLY = {Adam: EarlyRootAdam, AdamW: EarlyRootAdamW}
EARLY_ROOT = (
    "eps_root is added before the bias correction, sqrt((v + eps_root) / (1 - b2^t)); refmaml, "
    "optax and TorchOpt add it after: a convention, no mistake"
)
EXACT = (
    "gradients are clipped to norm exactly, as optax does; PyTorch adds 1e-6 to the norm: a "
    "convention, no mistake"
)


def conventions(rule):
    """[(rule, remark)]: the same rule as other right implementations have it."""
    if isinstance(rule, Clip):
        found = [(replace(rule, rule=other), remark) for other, remark in conventions(rule.rule)]
        if type(rule) is Clip and rule.norm is not None:
            found.append((ExactClip(**vars(rule)), EXACT))
        return found
    if type(rule) in EARLY and rule.eps_root:
        return [(EARLY[type(rule)](**vars(rule)), EARLY_ROOT)]
    return []


def under_convention(method):
    """[(method, remark)]: a method with its rule as other right implementations have
    it."""
    rule = getattr(method, "rule", None)
    return [(replace(method, rule=other), remark) for other, remark in conventions(rule)]
