"""ANIL: MAML whose inner loop moves the head only; the meta-gradient moves the body."""

from dataclasses import dataclass

from refmaml.methods.first_order_maml import FirstOrderMAML
from refmaml.methods.maml import MAML


@dataclass(frozen=True)
class ANIL(MAML):
    """MAML with A = alpha on the head, 0 on the body.

    The adjoint's H term still couples the two: without it the gradient would lose
    -alpha d^2 f / (d body d head) lam, as first-order ANIL does.
    Source: Raghu, Raghu, Bengio, Vinyals 2020, section 4.
    """

    adapts: tuple = ("head",)


@dataclass(frozen=True)
class FirstOrderANIL(FirstOrderMAML):
    """First-order MAML with A = alpha on the head, 0 on the body.

    Source: Collins, Mokhtari, Oh, Shakkottai 2022, section 2 (FO-ANIL).
    """

    adapts: tuple = ("head",)
