"""Gradients clipped in the inner loop."""

from refmaml.doctor.mistakes.mistake import Mistake, fix
from refmaml.doctor.wrong_rules import ConstantClip, ExactClip
from refmaml.update_rules import Clip

NO_CLIPPING = fix("no clipping inside the inner loop, or differentiate through it")
LIMITS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)


def clipping():
    """Clipping to a norm, differentiated or not, and clipping of single entries."""
    found = []
    for c in LIMITS:
        norm = f"the inner gradients are clipped to norm {c:g}"
        entries = f"the inner gradients' entries are clipped to [-{c:g}, {c:g}]"
        constant = {"rule": ConstantClip(norm=c)}
        found += [
            Mistake("26", f"{norm}, the clipping not differentiated", constant, NO_CLIPPING),
            Mistake("26", norm, {"rule": ExactClip(norm=c)}, NO_CLIPPING),
            Mistake("26", entries, {"rule": Clip(value=c)}, NO_CLIPPING),
        ]
    return found
