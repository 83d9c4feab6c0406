"""Parameters that do not adapt, adapt twice, or should not adapt."""

from refmaml.doctor.mistakes.mistake import Mistake, fix

EVERY = fix(
    "update every parameter that adapts; a missing (None) gradient is an error, "
    "not a reason to skip"
)
ONCE = fix("update every parameter once in each step, shared ones too")
GROUPS = {
    "head": "the head",
    "body": "the body",
    "*.bias": "every bias",
    "*.weight": "every weight",
    "BatchNorm2d": "batch-norm",
    **{f"{layer}.{kind}": f"{layer}.{kind}" for layer in "0125" for kind in ("weight", "bias")},
}


def skipped_or_updated_twice():
    """Each group of parameters left out of the inner loop, or updated twice in it."""
    found = []
    for pattern, text in GROUPS.items():
        skipped, twice = {"factors": ((pattern, 0.0),)}, {"factors": ((pattern, 2.0),)}
        name = f"the inner loop updates {text} twice in each step"
        found.append(Mistake("41", f"the inner loop does not adapt {text}", skipped, EVERY))
        found.append(Mistake("42", name, twice, ONCE))
    return found


def wrong_part_adapts(method):
    """The inner loop adapts other parameters than the method's `adapts`."""
    if tuple(method.adapts) == ("*",):
        return []
    only = fix(f"adapt {', '.join(method.adapts)} only")
    body = "the inner loop adapts the body in place of the head"
    return [
        Mistake("17", "the inner loop adapts every parameter", {"adapts": ("*",)}, only, True),
        Mistake("17", body, {"adapts": ("body",)}, fix("adapt the head only")),
    ]
