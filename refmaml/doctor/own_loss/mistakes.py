"""The mistakes that follow from a user's own parameters: arrays that do not adapt, or
adapt twice, by the names that they have here, and a second derivative that is wrong."""

from refmaml.doctor.method_table import IMPLICIT, NO_LOOP, entry
from refmaml.doctor.mistakes import Mistake
from refmaml.doctor.mistakes.layer_kernels import SECOND_DERIVATIVE
from refmaml.doctor.mistakes.parameters import distinct, groups_of_arrays, of_groups


def own_mistakes(case):
    """[Mistake] of an OwnLossCase, tried besides the method's dictionary."""
    found = []
    if case.wrong_product:
        changes = {"product": "framework_product"}
        found.append(Mistake("43", case.wrong_product, changes, SECOND_DERIVATIVE, True))
    if entry(case.method).kind in (IMPLICIT, NO_LOOP):
        return found
    return found + of_groups(groups(case.net.parameters))


def groups(parameters):
    """{in words: names}: arrays that may be forgotten together. No group holds all."""
    names = list(parameters.shapes)
    found = groups_of_arrays(parameters.shapes)
    for name, module in parameters.modules.items():
        inside = tuple(n for n in names if name and n.startswith(f"{name}."))
        found[f"the module {name} ({type(module).__name__})"] = inside
    for kind in dict.fromkeys(type(m).__name__ for m in parameters.modules.values()):
        inside = tuple(n for n in names if parameters.in_module_of_class(n, kind))
        found[f"every {kind}"] = inside
    return distinct(found, len(names))
