"""What a mistake in a layer gives on a case, to be compared with the user's results."""

from typing import NamedTuple

import numpy as np


class Fault(NamedTuple):
    """A mistake by name, with its results on one case.

    outputs  {"x": dx, parameter: its gradient}: those that it changes
    y        the output that the same mistake gives in the forward pass, or None
    dy       the adjoint for which outputs are, where it has another shape than the
             case's: a mistaken geometry may have another number of windows
    """

    name: str
    fix: str
    outputs: dict
    y: np.ndarray | None = None
    dy: np.ndarray | None = None
