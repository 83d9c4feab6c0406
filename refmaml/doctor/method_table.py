"""What the doctor knows of each method.

The facts come from the table of methods (refmaml/methods/table.py). The doctor adds the
dictionary of each method's mistakes and how learned step sizes are stored. Classes that
are not listed are looked up under the class they derive from.
"""

from dataclasses import fields
from functools import cache
from typing import Any, NamedTuple

from refmaml.doctor import method_settings
from refmaml.doctor.mistakes.erm import erm
from refmaml.doctor.mistakes.imaml import imaml
from refmaml.doctor.mistakes.posterior_and_encoder import alpaca, cnp
from refmaml.doctor.mistakes.reptile import reptile
from refmaml.doctor.mistakes.solved import lrd2, metaoptnet, r2d2
from refmaml.doctor.mistakes.unrolled import (
    cavia,
    first_order_maml,
    llama,
    maml,
    maml_plus_plus,
    meta_curvature,
    meta_sgd,
)
from refmaml.errors import expect
from refmaml.methods import (
    ANIL,
    CAVIA,
    CNP,
    ERM,
    IMAML,
    LLAMA,
    LRD2,
    MAML,
    R2D2,
    ALPaCA,
    FirstOrderANIL,
    FirstOrderMAML,
    MAMLPlusPlus,
    MetaCurvature,
    MetaOptNet,
    MetaSGD,
    Reptile,
    table,
    table_entry,
)

UNROLLED, DISPLACEMENT, IMPLICIT, NO_LOOP = "unrolled", "displacement", "implicit", "no loop"
SOLVED = "solved"
PER_PARAMETER, PER_LAYER_AND_STEP = "per parameter", "per layer and step"
KINDS = {
    table_entry.DERIVATIVE: UNROLLED,
    table_entry.FIRST_ORDER: UNROLLED,
    table_entry.LAPLACE: UNROLLED,
    table_entry.DISPLACEMENT: DISPLACEMENT,
    table_entry.IMPLICIT: IMPLICIT,
}

# {class: method -> [Mistake]}: the dictionaries.
MISTAKES = {
    MAML: maml,
    ANIL: maml,
    FirstOrderMAML: first_order_maml,
    FirstOrderANIL: first_order_maml,
    MetaSGD: meta_sgd,
    MetaCurvature: meta_curvature,
    MAMLPlusPlus: maml_plus_plus,
    CAVIA: cavia,
    Reptile: reptile,
    IMAML: imaml,
    ERM: erm,
    LLAMA: llama,
    R2D2: r2d2,
    LRD2: lrd2,
    MetaOptNet: metaoptnet,
    ALPaCA: alpaca,
    CNP: cnp,
}
SOLVE_OR_ENCODE = (R2D2, LRD2, MetaOptNet, ALPaCA, CNP)
SECOND_ORDER = (table_entry.DERIVATIVE, table_entry.LAPLACE)
STEP_SIZES = {MetaSGD: PER_PARAMETER, MAMLPlusPlus: PER_LAYER_AND_STEP}


class MethodEntry(NamedTuple):
    """What the doctor knows of one method.

    mistakes        method -> [Mistake]: the method's dictionary
    settings        method_settings.with_curvature or another function of the same
                    arguments: the method with a step size at which its mistakes show
    kind            UNROLLED: the adjoint recursion through an inner loop;
                    DISPLACEMENT: theta - phi_K; IMPLICIT: a linear system;
                    NO_LOOP: the query gradient at theta; SOLVED: a solve or an
                    encoder in place of a loop
    step_sizes      None, or how learned step sizes are stored: PER_PARAMETER, or
                    PER_LAYER_AND_STEP
    second_order    whether its gradient has a second-order term
    context         whether it adapts context parameters that start from 0
    """

    mistakes: Any
    settings: Any
    kind: str
    step_sizes: str | None
    second_order: bool
    context: bool


def entry(method):
    """The MethodEntry of a method's class, or of the class it derives from."""
    found = next((cls for cls in type(method).__mro__ if cls in MISTAKES), None)
    expect(
        found is not None,
        "method",
        "a method of refmaml, such as rm.MAML(0.1, 5)",
        lambda: type(method).__name__,
    )
    return entry_of_class(found)


@cache
def entry_of_class(cls):
    """The MethodEntry of a class in MISTAKES."""
    (known,) = (entry for entry in table.TABLE if entry.cls is cls)
    has_loop = any(field.name == "inner_steps" for field in fields(cls))
    without_loop = SOLVED if cls in SOLVE_OR_ENCODE else NO_LOOP
    kind = KINDS[known.gradient] if has_loop else without_loop
    implicit = kind == IMPLICIT
    return MethodEntry(
        MISTAKES[cls],
        method_settings.SETTINGS.get(known.gradient, method_settings.with_curvature),
        kind,
        STEP_SIZES.get(cls),
        second_order=implicit or (kind == UNROLLED and known.gradient in SECOND_ORDER),
        context=known.context,
    )
