"""The mistakes that follow from a user's own parameters: arrays that do not adapt, or
adapt twice, by the names that they have here, and a second derivative that is wrong."""

from refmaml.doctor.method_table import IMPLICIT, NO_LOOP, entry
from refmaml.doctor.mistakes import Mistake, fix
from refmaml.doctor.mistakes.parameters import EVERY, ONCE

MOST_ARRAYS = 64  # of which each is tried alone
SECOND_DERIVATIVE = fix(
    "write the operation's backward pass in operations that can be differentiated",
    torch="in a custom autograd.Function: save_for_backward, no ctx attributes and no "
    ".detach() in backward, which must itself be differentiable; or plain operations",
    jax="in a custom_vjp: a backward pass of differentiable operations, no stop_gradient",
)


def own_mistakes(case):
    """[Mistake] of an OwnLossCase, tried besides the method's dictionary."""
    found = []
    if case.wrong_product:
        changes = {"product": "framework_product"}
        found.append(Mistake("43", case.wrong_product, changes, SECOND_DERIVATIVE, True))
    if entry(case.method).kind in (IMPLICIT, NO_LOOP):
        return found
    for text, patterns in groups(case.net.parameters).items():
        skipped, twice = ({"factors": tuple((p, c) for p in patterns)} for c in (0.0, 2.0))
        name = f"the inner loop updates {text} twice in each step"
        found.append(Mistake("41", f"the inner loop does not adapt {text}", skipped, EVERY))
        found.append(Mistake("42", name, twice, ONCE))
    return found


def groups(parameters):
    """{in words: names}: arrays that may be forgotten together. No group holds all."""
    shapes, names = parameters.shapes, list(parameters.shapes)
    found = {name: (name,) for name in names} if len(names) <= MOST_ARRAYS else {}
    last = {name: name.rpartition(".")[2] for name in names}
    for kind in dict.fromkeys(last.values()):
        found[f"every {kind}"] = tuple(n for n in names if last[n] == kind)
    one = tuple(n for n in names if len(shapes[n]) == 1)
    found["every one-dimensional array (biases, norms)"] = one
    norms = tuple(n for n in one if "bias" not in last[n])
    found["every one-dimensional array that is no bias (norms)"] = norms
    for name, module in parameters.modules.items():
        inside = tuple(n for n in names if name and n.startswith(f"{name}."))
        found[f"the module {name} ({type(module).__name__})"] = inside
    for kind in dict.fromkeys(type(m).__name__ for m in parameters.modules.values()):
        inside = tuple(n for n in names if parameters.in_module_of_class(n, kind))
        found[f"every {kind}"] = inside
    chosen, seen = {}, set()
    for text, group in found.items():
        if group and len(group) < len(names) and group not in seen:
            chosen[text] = group
            seen.add(group)
    return chosen
