"""A net as a function of named parameters, in PyTorch or JAX.

The way out of refmaml: the same layers and the same loss, for automatic
differentiation, optimisers and compilers of these frameworks.
"""

import numpy as np

from refmaml.autodiff import formulas, jax_autodiff, torch_autodiff
from refmaml.errors import expect


class NetFunction:
    """f(params, x) -> outputs, and f.loss(params, x, y), of the examples of one task.

    params  {"0.weight": array, ...}, the names and shapes of net.shapes
    x       inputs (N, ...); outputs are (N, D)
    y       targets: labels (N,) or values (N, D), as the net's loss takes them
    Both are pure functions, written in operations that are right under every order of
    differentiation (formulas.py): batch-norm is mean, product and power. A batch of
    tasks is vmap's work.
    Raises ArgumentError where names or shapes do not fit the net, and for a net with a
    layer or loss that has no formula in formulas.py.
    """

    def __init__(self, net, framework, array_type=None):
        formulas.expect_formulas(net)
        self.net, self.framework, self.array_type = net, framework, array_type

    def __repr__(self):
        return f"{type(self).__name__}({self.framework.xp.__name__}, {self.net!r})"

    def __call__(self, params, x):
        self.check(params, x)
        return formulas.named_outputs(self.framework, self.net, params, x, formulas.FORWARD)

    def loss(self, params, x, y):
        """The net's loss, a scalar."""
        self.check(params, x)
        self.check_targets(x, y)
        return formulas.named_loss(
            self.framework, self.net, params, x, y, formulas.FORWARD, formulas.LOSSES
        )

    def check(self, params, x):
        """Raise ArgumentError unless parameters and inputs fit the net."""
        self.net.parameters.check_names(params)
        for name, shape in self.net.shapes.items():
            self.check_array(name, params[name])
            got = tuple(params[name].shape)
            expect(got == shape, name, f"shape {shape}", lambda got=got: f"{got}")
        self.check_array("x", x)
        expect(len(x.shape) >= 2, "x", "shape (examples, ...)", lambda: f"{tuple(x.shape)}")
        self.net.output_shape(tuple(x.shape[1:]))

    def check_targets(self, x, y):
        """Raise ArgumentError unless targets have the shape and kind that the loss takes.

        A tensor has no NumPy dtype, so the loss checks a stand-in of one repeated entry.
        """
        self.check_array("y", y)
        integers = "int" in str(y.dtype)
        stand_in = np.broadcast_to(np.zeros((), int if integers else float), (1, *y.shape))
        outputs = self.net.output_shape(tuple(x.shape[1:]))
        self.net.loss_function.check(outputs, stand_in, (1, len(x)))

    def check_array(self, name, value):
        """Raise ArgumentError unless a value is an array of the framework."""
        known = hasattr(value, "shape") and hasattr(value, "dtype")
        if self.array_type is not None:
            known = isinstance(value, self.array_type)
        wanted = f"an array of {self.framework.xp.__name__}"
        expect(known, name, wanted, lambda: type(value).__name__)


def torch_function(net):
    """A net as a NetFunction of PyTorch. Raises ArgumentError without PyTorch."""
    reason = torch_autodiff.missing()
    expect(reason is None, "to_torch", "PyTorch", lambda: reason)
    import torch

    return NetFunction(net, torch_autodiff.framework(), torch.Tensor)


def jax_function(net):
    """A net as a NetFunction of JAX. Raises ArgumentError without JAX."""
    reason = jax_autodiff.missing()
    expect(reason is None, "to_jax", "JAX", lambda: reason)
    return NetFunction(net, jax_autodiff.framework())
