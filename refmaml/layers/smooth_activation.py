"""Smooth elementwise layers: Sigmoid, SiLU, GELU and ELU.

kernels/activation/smooth_functions.py derives their functions.
"""

from dataclasses import dataclass

from refmaml.arguments import check_choice, check_number, set_fields
from refmaml.kernels.activation import smooth_functions
from refmaml.layers.activation import Activation

GELUS = {"none": smooth_functions.gelu, "tanh": smooth_functions.gelu_tanh}


@dataclass(frozen=True)
class Sigmoid(Activation):
    """y = s = 1 / (1 + e^-x), y' = s (1 - s), y'' = s (1 - s) (1 - 2 s)."""

    function = smooth_functions.logistic


@dataclass(frozen=True)
class SiLU(Activation):
    """y = x s, s = sigmoid(x); y' = s (1 + x (1 - s)).

    y'' = s (1 - s) (2 + x (1 - 2 s)).
    """

    function = smooth_functions.silu


@dataclass(frozen=True)
class GELU(Activation):
    """y = x Phi(x), y' = Phi + x phi, y'' = (2 - x^2) phi.

    Phi and phi are the distribution function and the density of N(0, 1).
    approximate  "none", or "tanh": y = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715
                 x^3))), with the derivatives of that
    Raises ArgumentError for another `approximate`.
    Source: Hendrycks & Gimpel 2016, sections 2 and 4.
    """

    approximate: str = "none"

    def __post_init__(self) -> None:
        check_choice("approximate", self.approximate, tuple(GELUS))

    @classmethod
    def examples(cls):
        """[(layer, shape of one input), ...]"""
        return [(cls(), (3, 4, 2)), (cls(), (5,)), (cls("tanh"), (3, 4, 2)), (cls("tanh"), (5,))]

    @property
    def function(self):
        return GELUS[self.approximate]


@dataclass(frozen=True)
class ELU(Activation):
    """y = x where x > 0, alpha (e^x - 1) elsewhere; y' = y'' = alpha e^x there.

    At 0 the derivatives are those of the left branch.
    Raises ArgumentError unless alpha is a finite number.
    Source: Clevert, Unterthiner, Hochreiter 2016, eq. 15.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        set_fields(self, alpha=check_number("alpha", self.alpha))

    @classmethod
    def examples(cls):
        """[(layer, shape of one input), ...]"""
        return [(cls(), (3, 4, 2)), (cls(0.3), (3, 4, 2)), (cls(), (5,))]

    @property
    def function(self):
        return smooth_functions.elu(self.alpha)
