"""What a method asks of a model: the passes, and how its work is run.

A method hands its work to `model.run`. Here that is a plain call. A model whose kernels
need more (a copy of the arrays, a different order of the work) overrides these
functions; the methods stay as they are.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from refmaml.layers.layer import Array
from refmaml.nonfinite import refuse_pass


class Net(Protocol):
    """What the methods use of a model; Network, Quadratic and Model say more of each.

    Arrays of one or of all tasks are rows: w (T or 1, P), v (T or 1, P).
    """

    kernels: Any

    @property
    def early_stop(self) -> bool:
        """Whether a loop may end when all tasks are solved."""

    @property
    def num_params(self) -> int:
        """P."""

    @property
    def blocks(self) -> list[slice]:
        """The slices of the flat vector that hold one named array each."""

    def primal(self, w: Array, x: Array, y: Array, /, keep: bool = True) -> Any:
        """Loss and gradient at w, kept so that `hvp` need not repeat them."""

    def loss(self, w: Array, x: Array, y: Array, /) -> Array:
        """The loss of each task, (T,)."""

    def hvp(self, primal: Any, v: Array, /) -> Array:
        """H v of each task, (T, P)."""

    def mask(self, patterns: tuple, /) -> np.ndarray:
        """(P,) of bools: the parameters that the patterns select."""

    def run(self, work: Callable, /, *arrays: Array) -> tuple[list, dict]:
        """The vectors and figures of work(net, *arrays)."""

    def require(self, ok: Any, refuse: Callable[[], None], /) -> None:
        """Call refuse(), which raises, unless `ok`."""

    def require_finite(self, primal: Any, w: Array, x: Array, stage: str, /) -> None:
        """Raise NonFiniteError unless loss and gradient are finite."""

    def adapt_mask(self, adapts: tuple, frozen: tuple = (), /) -> Array:
        """(P,) of bools: the parameters that adapt."""

    def name_of(self, place: int, /) -> str:
        """ " (0.weight)", or "", for an entry of the flat vector."""


class Model:
    """The base of `Network` and `Quadratic`, which add num_params, kernels, the passes.

    early_stop  whether a loop may look at its numbers and end when all tasks are solved
    """

    early_stop = True

    def run(self, work, *arrays):
        """work(self, *arrays) -> (vectors, figures).

        arrays   meta (M,) or theta (P,) first, then inputs and targets in pairs
        vectors  a list of arrays, or of dicts of lists of arrays
        figures  {name: array (T,)}
        Underflow and overflow raise no NumPy warnings: the finiteness checks find them.
        """
        with np.errstate(all="ignore"):
            return work(self, *arrays)

    def require(self, ok, refuse):
        """Call refuse(), which raises, unless `ok` (a bool or an array with one)."""
        if not ok:
            refuse()

    def require_finite(self, primal, w, x, stage):
        """Raise NonFiniteError unless loss and gradient of the pass are finite.

        The error names the first task and layer whose numbers are not finite.
        """
        self.require(self.finite(primal), lambda: refuse_pass(self, primal, w, x, stage))

    def finite(self, primal):
        """Whether loss and gradient are finite in every task."""
        xp = self.kernels.xp
        return xp.isfinite(primal.loss).all() & xp.isfinite(primal.grad).all()

    def adapt_mask(self, adapts, frozen=()):
        """(P,) of bools: the parameters that `adapts` selects and `frozen` does not."""
        mask = self.mask(adapts)
        return mask & ~self.mask(frozen) if frozen else mask

    def layer_outputs(self, w, x):
        """(name, layer, its outputs) in a forward pass; none without layers."""
        return ()

    def name_of(self, place):
        """ " (0.weight)" for an entry of the flat vector, for error messages; or ""."""
        return ""
