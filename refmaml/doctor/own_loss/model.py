"""A user's loss as a model that the methods take in place of a net.

A problem is three functions of one task: loss, gradient, Hessian-vector product. What
made them, a framework or formulas, does not matter here. The model loops over tasks."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refmaml import kernels
from refmaml.doctor.own_loss.differences import product_by_differences
from refmaml.errors import ArgumentError, expect
from refmaml.model import Model

KEPT = 256  # passes that are kept, each with what its framework needs for products


class Pass(NamedTuple):
    """One pass on one task.

    loss     a number
    grad     (P,)
    product  v (P,) -> H v (P,); None where no product was asked for
    at       (w, x, y, number): where it was made
    """

    loss: float
    grad: np.ndarray
    product: Any
    at: tuple = ()


@dataclass(frozen=True)
class TaskPasses:
    """The passes of all tasks: loss (T,), grad (T, P), and the Pass of each task."""

    loss: np.ndarray
    grad: np.ndarray
    passes: list
    accuracy: None = None


class LossModel(Model):
    """T tasks with a user's loss.

    functions   an object with pass_at(w (P,), x, y, number, products) -> Pass, of one
                task's TaskData: see torch_functions.py, jax_functions.py,
                numpy_functions.py
    parameters  OwnParameters
    step        None: products are the framework's own; or the step of 4th-order
                differences of the gradients, where those are wrong or missing
    """

    layers = ()
    input_shape = None

    def __init__(self, functions, parameters, step=None):
        self.functions, self.parameters, self.step = functions, parameters, step
        self.kernels = kernels.reference()
        self.kept = OrderedDict()

    # ---- what a net has --------------------------------------------------------------

    @property
    def num_params(self):
        """P."""
        return self.parameters.size

    @property
    def shapes(self):
        """{name: shape} in the order of the flat vector."""
        return self.parameters.shapes

    @property
    def blocks(self):
        """The slices of the flat vector that hold one named array each."""
        return list(self.parameters.slices.values())

    def init(self, seed=0, dtype=np.float64):
        """The user's own parameters (P,)."""
        return self.parameters.start.astype(dtype)

    def named(self, theta):
        """{name: array}, views of a flat vector."""
        return self.parameters.named(theta)

    def flat(self, named, dtype=None):
        """The flat vector (P,) of named arrays."""
        return self.parameters.flat(named, dtype)

    def mask(self, patterns):
        """(P,) of bools: the parameters that the patterns select; see OwnParameters."""
        return self.parameters.mask(patterns)

    def name_of(self, place):
        """ " (name)" for an entry of the flat vector."""
        slices = self.parameters.slices.items()
        return next(f" ({name})" for name, part in slices if part.start <= place < part.stop)

    def activations(self, shape):
        """0: not known of a loss."""
        return 0

    # ---- what needs refmaml's own layers ---------------------------------------------

    def with_kernels(self, kernels):
        """Raise ArgumentError: there are no layers of refmaml to compute otherwise."""
        raise ArgumentError("net: expected layers of refmaml, got a loss of the user's own")

    @property
    def loss_function(self):
        """Raise ArgumentError: the loss is the user's own."""
        raise ArgumentError("net: expected a loss of refmaml, got a loss of the user's own")

    def with_loss(self, loss):
        """Raise ArgumentError: the loss is the user's own."""
        return self.loss_function

    def gauss_newton_product(self, primal, v):
        """Raise ArgumentError: the outputs are not known apart from the loss."""
        raise ArgumentError("net: expected outputs apart from the loss, got the loss alone")

    # ---- the passes ------------------------------------------------------------------

    def primal(self, w, x, y, keep=True):
        """Loss and gradient of each task; with `keep` also what `hvp` needs."""
        T, number = len(x), x.next_pass()
        expect(len(w) in (1, T), "w", f"1 or {T} rows", f"{len(w)}")
        pairs = zip(x.tasks, y.tasks, strict=True)
        passes = [
            self.pass_at(w[t if len(w) > 1 else 0], x_t, y_t, number, keep)
            for t, (x_t, y_t) in enumerate(pairs)
        ]
        loss = np.array([p.loss for p in passes], w.dtype)
        return TaskPasses(loss, np.stack([p.grad for p in passes]), passes)

    def pass_at(self, w, x, y, number=0, keep=True):
        """The Pass of one task, from the memory of the last passes if it is there."""
        number = number if self.functions.random is not None else 0
        key = w.tobytes(), w.dtype.char, id(x), id(y), number, keep
        if key not in self.kept:
            found = self.functions.pass_at(w, x, y, number, keep)
            self.kept[key] = found._replace(at=(w.copy(), x, y, number))
            while len(self.kept) > KEPT:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]

    def forget(self):
        """Forget all passes, after a change of the functions."""
        self.kept.clear()

    def loss(self, w, x, y):
        """The loss of each task, (T,)."""
        return self.primal(w, x, y, keep=False).loss

    def gradient(self, w, x, y):
        """The gradient of each task, (T, P)."""
        return self.primal(w, x, y, keep=False).grad

    def hvp(self, primal, v):
        """H v of each task, (T, P)."""
        product = framework_product if self.step is None else self.product_by_differences
        return rowwise(product, primal, v)

    def framework_product(self, primal, v):
        """H v as the user's framework has it, right or wrong."""
        return rowwise(framework_product, primal, v)

    def product_by_differences(self, p, v):
        """H v of one Pass by differences of gradients."""
        w, x, y, number = p.at

        def gradient(w):
            return self.functions.pass_at(w, x, y, number, False).grad

        return product_by_differences(gradient, w, v, self.step)


def framework_product(p, v):
    """H v of one Pass by its own product."""
    return p.product(v)


def rowwise(product, primal, v):
    """product(pass, v) of each task; v (T or 1, P)."""
    rows = np.broadcast_to(v, primal.grad.shape)
    found = [product(p, row) for p, row in zip(primal.passes, rows, strict=True)]
    return np.stack(found).astype(primal.grad.dtype, copy=False)
