"""What the doctor knows of each method: one item for each class, in one table.

Classes that are not listed are looked up under the class they derive from.
"""

from typing import Any, NamedTuple

from refmaml.doctor import method_settings
from refmaml.doctor.mistakes.erm import erm
from refmaml.doctor.mistakes.imaml import imaml
from refmaml.doctor.mistakes.reptile import reptile
from refmaml.doctor.mistakes.unrolled import cavia, first_order_maml, maml, maml_plus_plus, meta_sgd
from refmaml.errors import expect
from refmaml.methods import (
    ANIL,
    CAVIA,
    ERM,
    IMAML,
    MAML,
    FirstOrderANIL,
    FirstOrderMAML,
    MAMLPlusPlus,
    MetaSGD,
    Reptile,
)

UNROLLED, DISPLACEMENT, IMPLICIT, NO_LOOP = "unrolled", "displacement", "implicit", "no loop"
PER_PARAMETER, PER_LAYER_AND_STEP = "per parameter", "per layer and step"


class MethodEntry(NamedTuple):
    """What the doctor knows of one method.

    mistakes        method -> [Mistake]: the method's dictionary
    settings        method_settings.with_curvature or another function of the same
                    arguments: the method with a step size at which its mistakes show
    kind            UNROLLED: the adjoint recursion through an inner loop;
                    DISPLACEMENT: theta - phi_K; IMPLICIT: a linear system;
                    NO_LOOP: the query gradient at theta
    step_sizes      None, or how learned step sizes are stored: PER_PARAMETER, or
                    PER_LAYER_AND_STEP
    second_order    whether its gradient has a second-order term
    context         whether it adapts context parameters that start from 0
    """

    mistakes: Any
    settings: Any = method_settings.with_curvature
    kind: str = UNROLLED
    step_sizes: str | None = None
    second_order: bool = True
    context: bool = False


METHODS = {
    MAML: MethodEntry(maml),
    ANIL: MethodEntry(maml),
    FirstOrderMAML: MethodEntry(first_order_maml, second_order=False),
    FirstOrderANIL: MethodEntry(first_order_maml, second_order=False),
    MetaSGD: MethodEntry(meta_sgd, step_sizes=PER_PARAMETER),
    MAMLPlusPlus: MethodEntry(maml_plus_plus, step_sizes=PER_LAYER_AND_STEP),
    CAVIA: MethodEntry(cavia, context=True),
    Reptile: MethodEntry(reptile, kind=DISPLACEMENT, second_order=False),
    IMAML: MethodEntry(imaml, method_settings.with_proximal_term, IMPLICIT),
    ERM: MethodEntry(erm, kind=NO_LOOP, second_order=False),
}


def entry(method):
    """The MethodEntry of a method's class, or of the class it derives from."""
    found = next((METHODS[c] for c in type(method).__mro__ if c in METHODS), None)
    expect(
        found is not None,
        "method",
        "a method of refmaml, such as rm.MAML(0.1, 5)",
        lambda: type(method).__name__,
    )
    return found
