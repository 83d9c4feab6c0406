"""What a method asks of a model besides `primal`, `loss` and `hvp`: how its work is run.

A method hands its work to `model.run`. Here that is a plain call. A model whose kernels
need more (a copy of the arrays, a different order of the work) overrides these
functions; the methods stay as they are.
"""

import numpy as np

from refmaml.nonfinite import refuse_pass


class Model:
    """The base of `Network` and `Quadratic`: they add num_params, kernels and the passes.

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
        """Raise NonFiniteError unless loss and gradient of the pass `primal` are finite.

        The error names the first task and layer at which the pass left the finite numbers.
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
        """Pairs (layer, its outputs) of a forward pass; none for a model without layers."""
        return ()

    def name_of(self, place):
        """ " (0.weight)" for an entry of the flat vector, for error messages; or ""."""
        return ""
