"""One forward and backward pass, kept for the R-passes."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Primal:
    """One forward and backward pass at w, kept so that R-passes need not repeat it.

    loss (T,), accuracy (T,) or None, grad (T, P), outputs z (T, N, D).
    saved       what the forward pass of each layer saved
    dys         the adjoint dy of each layer's output
    loss_saved  what the loss saved
    The last three are None where `primal` was called with keep=False.
    """

    w: list
    outputs: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    grad: np.ndarray
    saved: Any
    dys: Any
    loss_saved: Any
