"""A user's loss in PyTorch as loss, gradient and Hessian-vector product."""

from contextlib import contextmanager

import numpy as np
import torch

from refmaml.doctor.frameworks import first_line
from refmaml.doctor.own_loss.model import Pass
from refmaml.doctor.own_loss.user_loss import expect_number
from refmaml.errors import ArgumentError, expect

DTYPES = {"d": torch.float64, "f": torch.float32}


class TorchFunctions:
    """loss, gradient and product by torch.autograd, the product twice in reverse.

    loss        a UserLoss
    parameters  OwnParameters
    module      the user's UserModule, or None: see torch_modules.py
    device      of all tensors
    random      a RandomDraws, or None: see random_draws.py
    state       of the generator of random numbers after the last loss
    """

    uses_differences = False

    def __init__(self, loss, parameters, module=None, device="cpu", random=None):
        self.loss, self.parameters, self.module = loss, parameters, module
        self.device, self.random, self.state = device, random, None

    def tensor(self, a, dtype):
        """A NumPy array as a new tensor; real numbers in a dtype of torch."""
        if not isinstance(a, np.ndarray):
            return a
        t = torch.from_numpy(np.array(a))
        return t.to(self.device, dtype) if a.dtype.kind == "f" else t.to(self.device)

    def data(self, x, dtype):
        """The x or y of one task as tensors, made once."""
        return x.converted(("torch", dtype), lambda a: self.tensor(a, dtype))

    def leaves(self, w):
        """The parameters as tensors that require a gradient, in order."""
        arrays = self.parameters.arrays(w)
        return [self.tensor(np.asarray(a), DTYPES[w.dtype.char]).requires_grad_() for a in arrays]

    @contextmanager
    def surroundings(self, dtype, x, number):
        """The module in the precision of a pass, and the random numbers that belong to
        it; both are put back."""
        with torch.enable_grad(), torch.random.fork_rng(devices=[], enabled=True):
            if self.random is not None:
                self.random.set(x, number)
            if self.module is None:
                yield
            else:
                with self.module.in_precision(dtype):
                    yield
            self.state = torch.get_rng_state()

    def value(self, leaves, x, y, number=0):
        """The loss as a tensor with a graph. Raises ArgumentError for another value."""
        dtype = leaves[0].dtype
        with self.surroundings(dtype, x, number):
            params = self.parameters.user(leaves)
            value = self.loss.called(params, x, self.data(x, dtype), self.data(y, dtype))
        shape = getattr(value, "shape", None)
        expect_number(value, shape, shape is not None and value.is_floating_point())
        expect(
            value.requires_grad,
            "loss",
            "a number that depends on the parameters",
            "one without a graph (.detach(), .item(), torch.no_grad(), or a module's own "
            "parameters in place of params?)",
        )
        return value.reshape(())

    def pass_at(self, w, x, y, number, products):
        """The Pass of one task at w (P,), in w's precision."""
        leaves = self.leaves(w)
        value = self.value(leaves, x, y, number)
        grads = self.differentiated(value, leaves, products)
        product = None
        if products:
            product = self.product_of(leaves, grads, w.dtype)
        return Pass(float(value.detach()), self.flat(grads, leaves, w.dtype), product)

    def differentiated(self, value, leaves, products):
        """The gradient's tensors; None where the loss does not depend on one."""
        try:
            return torch.autograd.grad(
                value, leaves, create_graph=products, retain_graph=products, allow_unused=True
            )
        except RuntimeError as error:
            got = first_line(error)
            raise ArgumentError(f"loss: expected a loss with a derivative, got {got}") from error

    def product_of(self, leaves, grads, dtype):
        """v (P,) -> H v (P,). Raises ArgumentError where an operation has no second
        derivative."""
        live = [(g, i) for i, g in enumerate(grads) if g is not None and g.requires_grad]

        def product(v):
            if not live:
                return np.zeros_like(v)
            vectors = self.parameters.arrays(v)
            along = [self.tensor(np.asarray(vectors[i]), leaves[0].dtype) for _, i in live]
            try:
                found = torch.autograd.grad(
                    [g for g, _ in live], leaves, along, retain_graph=True, allow_unused=True
                )
            except RuntimeError as error:
                raise NoSecondDerivativeError(first_line(error)) from error
            return self.flat(found, leaves, dtype)

        return product

    def flat(self, grads, leaves, dtype):
        """(P,) of the tensors of a gradient."""
        parts = [
            torch.zeros_like(leaf) if g is None else g
            for g, leaf in zip(grads, leaves, strict=True)
        ]
        parts = [part.detach().reshape(-1) for part in parts]
        return torch.cat(parts).cpu().numpy().astype(dtype, copy=False)

    def with_smaller_step(self, factor):
        """These functions: they have no step of their own."""
        return self

    # ---- the user's arrays -----------------------------------------------------------

    def to_user(self, dtype):
        """A NumPy array -> a new tensor in a precision of NumPy's."""
        return lambda a: self.tensor(a, DTYPES[np.dtype(dtype).char])

    @contextmanager
    def around_call(self, dtype):
        """What a call of the user's function needs: the module in its precision."""
        if self.module is None:
            yield
        else:
            with self.module.in_precision(DTYPES[np.dtype(dtype).char]):
                yield


class NoSecondDerivativeError(ArgumentError):
    """An operation of the user's loss cannot be differentiated twice."""
