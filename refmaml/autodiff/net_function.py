"""A net as a function of named parameters, in PyTorch or JAX.

The way out of refmaml: the same layers and the same loss, for automatic
differentiation, optimisers and compilers of these frameworks.
"""

from collections.abc import Mapping
from importlib import import_module

import numpy as np

from refmaml.autodiff import formulas, jax_autodiff, torch_autodiff
from refmaml.errors import expect

LIBRARIES = {"torch": torch_autodiff, "jax": jax_autodiff}
ARRAYS = {"torch": "Tensor", "jax": "Array"}


class NetFunction:
    """f(params, x) -> outputs, and f.loss(params, x, y), of the examples of one task.

    params  {"0.weight": array, ...}, the names and shapes of net.shapes
    x       inputs (N, ...); outputs are (N, D)
    y       targets: labels (N,) or values (N, D), as the net's loss takes them
    Both are pure functions, written in operations that are right under every order of
    differentiation (formulas.py): batch-norm is mean, product and power. To compute
    several tasks together, use vmap.

    library  "torch" or "jax"
    Raises ArgumentError where the library cannot be imported, for a net with a layer or
    loss that has no formula in formulas.py, and for arguments that do not fit the net.
    """

    def __init__(self, net, library):
        reason = LIBRARIES[library].missing()
        expect(reason is None, f"to_{library}", library, lambda: reason)
        formulas.expect_formulas(net)
        self.net, self.library = net, library
        self.framework = LIBRARIES[library].framework()
        array = getattr(import_module(library), ARRAYS[library])
        self.arrays = array if library == "torch" else (array, np.ndarray)

    def __reduce__(self):
        """Copies and pickles are built from the net: modules cannot be pickled."""
        return type(self), (self.net, self.library)

    def __repr__(self):
        return f"{type(self).__name__}({self.library}, {self.net!r})"

    def __call__(self, params, x):
        self.check(params, x)
        return formulas.named_outputs(
            self.framework, self.net.named_layers, params, x, formulas.FORWARD
        )

    def loss(self, params, x, y):
        """The net's loss, a scalar."""
        self.check(params, x)
        self.check_targets(x, y)
        return formulas.named_loss(
            self.framework, self.net, params, x, y, formulas.FORWARD, formulas.LOSSES
        )

    def check(self, params, x):
        """Raise ArgumentError unless parameters and inputs fit the net."""
        known = isinstance(params, Mapping)
        expect(known, "params", "a dict of named arrays", lambda: type(params).__name__)
        self.net.parameters.check_names(params)
        for name, shape in self.net.shapes.items():
            self.check_array(name, params[name])
            got = tuple(params[name].shape)
            expect(got == shape, name, f"shape {shape}", lambda got=got: f"{got}")
        self.check_array("x", x)
        expect(len(x.shape) >= 2, "x", "shape (examples, ...)", lambda: f"{tuple(x.shape)}")
        self.net.output_shape(tuple(x.shape[1:]))

    def check_targets(self, x, y):
        """Raise ArgumentError unless the loss takes the targets' shape and kind.

        A tensor has no NumPy dtype: the loss checks a stand-in of one repeated entry.
        """
        self.check_array("y", y)
        integers = "int" in str(y.dtype)
        stand_in = np.broadcast_to(np.zeros((), int if integers else float), (1, *y.shape))
        outputs = self.net.output_shape(tuple(x.shape[1:]))
        self.net.loss_function.check(outputs, stand_in, (1, len(x)))

    def check_array(self, name, value):
        """Raise ArgumentError unless a value is an array of the library."""
        wanted = f"a {self.library}.{ARRAYS[self.library]}"
        expect(isinstance(value, self.arrays), name, wanted, lambda: type(value).__name__)
