"""A kernel set: the functions of one implementation under one roof, passed as an argument and never chosen by a global."""
from importlib import import_module
from types import MappingProxyType

import numpy as np

OPERATIONS = ("conv2d", "linear", "bias", "batch_norm", "activation", "pooling", "film",
              "cross_entropy", "squared_error")


class KernelSet:
    """Kernels by name: `kernels.conv2d_forward(y, x, w, stride, padding)`.

    name       what it is called in tables and error messages
    functions  {kernel name: function}
    xp         the module that allocates its arrays (numpy or cupy)
    """

    def __init__(self, name, functions, xp=np):
        self.name, self.xp = name, xp
        self.functions = MappingProxyType(dict(functions))

    def __getattr__(self, kernel):
        try:
            return self.__dict__["functions"][kernel]
        except KeyError:
            raise AttributeError(f"kernel set {self.__dict__.get('name')!r} has no kernel {kernel!r}") from None

    def __repr__(self):
        return f"KernelSet({self.name!r}, {len(self.functions)} kernels)"

    def empty(self, shape, dtype):
        """An uninitialised array for a kernel to fill."""
        return self.xp.empty(shape, dtype)

    def replace(self, name=None, **functions):
        """A copy with some kernels exchanged: how another implementation, or a planted error, is tried out."""
        unknown = sorted(set(functions) - set(self.functions))
        if unknown:
            raise AttributeError(f"kernel set {self.name!r} has no kernel {unknown[0]!r} to replace")
        return KernelSet(name or self.name, {**self.functions, **functions}, self.xp)


def collect(implementation):
    """{name: function} of every public kernel in `kernels/*/<implementation>.py`."""
    functions = {}
    for operation in OPERATIONS:
        module = import_module(f"refmaml.kernels.{operation}.{implementation}")
        functions.update({name: getattr(module, name) for name in module.__all__})
    return functions


def reference(xp=np):
    """The reference kernels: array expressions for any strides and any float or complex dtype.

    They are analytic (branches look at real parts only; no abs, conj or maximum), so that a complex step runs through.
    """
    return KernelSet("reference", collect("reference"), xp)
