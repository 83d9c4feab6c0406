"""Parameters that do not adapt, adapt twice, or should not adapt."""

from refmaml.doctor.mistakes.mistake import Mistake, fix

EVERY = fix(
    "update every parameter that adapts; a missing (None) gradient is an error, "
    "not a reason to skip"
)
ONCE = fix("update every parameter once in each step, shared ones too")
MOST_ARRAYS = 64  # of which each is tried alone
MOST_LISTED = 4  # names of norms
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


def of_own_net(case):
    """Arrays of the user's own net that do not adapt, by the names that they have
    there."""
    groups = groups_of_arrays(case.net.shapes)
    return of_groups(distinct(groups, len(case.net.shapes)))[::2]


def of_groups(groups):
    """[Mistake] of groups of arrays that do not adapt, or adapt twice."""
    found = []
    for text, names in groups.items():
        skipped, twice = ({"factors": tuple((n, c) for n in names)} for c in (0.0, 2.0))
        name = f"the inner loop updates {text} twice in each step"
        found.append(Mistake("41", f"the inner loop does not adapt {text}", skipped, EVERY))
        found.append(Mistake("42", name, twice, ONCE))
    return found


def groups_of_arrays(shapes):
    """{in words: names} of arrays that may be forgotten together: each alone, all of
    one last name, all of one dimension."""
    names = list(shapes)
    found = {name: (name,) for name in names} if len(names) <= MOST_ARRAYS else {}
    last = {name: name.rpartition(".")[2] for name in names}
    for kind in dict.fromkeys(last.values()):
        found[f"every {kind}"] = tuple(n for n in names if last[n] == kind)
    one = tuple(n for n in names if len(shapes[n]) == 1)
    found["every one-dimensional array (biases, norms)"] = one
    norms = tuple(n for n in one if "bias" not in last[n])
    listed = ", ".join(norms[:MOST_LISTED]) + (", ..." if len(norms) > MOST_LISTED else "")
    found[f"every one-dimensional array that is no bias (norms: {listed})"] = norms
    return found


def distinct(groups, arrays):
    """The groups without those that are empty, hold every array, or were there
    before."""
    chosen, seen = {}, set()
    for text, group in groups.items():
        if group and len(group) < arrays and group not in seen:
            chosen[text] = group
            seen.add(group)
    return chosen


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
