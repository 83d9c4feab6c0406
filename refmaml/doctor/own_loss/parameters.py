"""A user's parameters, in a structure of any kind, as one flat vector and back."""

from fnmatch import fnmatchcase
from math import prod

import numpy as np

from refmaml.arrays import described
from refmaml.doctor.own_loss.trees import is_float, to_numpy, tree_of
from refmaml.errors import expect
from refmaml.parameters import Parameters

WANTED = "a dict, a pytree or an nn.Module with floating-point arrays"


class OwnParameters(Parameters):
    """The layout of a flat vector (P,) that holds a user's floating-point arrays.

    value      a dict, a pytree or the named parameters of a module; arrays of integers
               and values that are no arrays are handed to the loss as they are
    framework  whose structures it has: see trees.py
    modules    {name: module} of an nn.Module, or {}: their classes are patterns too
    What is before the last dot of a name is the name of its layer. Raises ArgumentError
    in one line for parameters without floating-point arrays, or with NaN.
    """

    def __init__(self, value, framework, modules=None):
        tree = tree_of(value, framework)
        self.framework, self.rebuild = framework, tree.rebuild
        self.modules = modules or {}
        leaves = [
            to_numpy(leaf, f"params[{n!r}]")
            for n, leaf in zip(tree.names, tree.leaves, strict=True)
        ]
        self.leaves = leaves  # those that are parameters are replaced, the others stay
        self.places = [i for i, leaf in enumerate(leaves) if is_float(leaf)]
        expect(self.places, "params", WANTED, lambda: described(value))
        expect(
            len(set(tree.names)) == len(tree.names),
            "params",
            "one name for each array, keys and places with dots between them",
            lambda: f"two of the name {repeated(tree.names)!r}",
        )
        names = [tree.names[i] or "params" for i in self.places]
        self.shapes = {n: leaves[i].shape for n, i in zip(names, self.places, strict=True)}
        self.set_layout()
        self.start = np.concatenate([leaves[i].ravel() for i in self.places])
        for name, part in self.slices.items():
            bad = int((~np.isfinite(self.start[part])).sum())
            expect(not bad, f"params[{name!r}]", "finite numbers", f"{bad} that are not")

    def set_layout(self):
        """The slices of the vector, and each array's layer: see Parameters."""
        self.slices, self.layer_of, self.within_layer = {}, {}, {}
        self.masks, self.size = {}, 0
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in self.shapes))
        self.named_layers, self.layers = {layer: None for layer in layers}, ()
        for name, shape in self.shapes.items():
            layer, _, within = name.rpartition(".")
            self.layer_of[name], self.within_layer[name] = layers.index(layer), within
            self.slices[name] = slice(self.size, self.size + prod(shape))
            self.size += prod(shape)

    def matches(self, full, pattern):
        """Whether a pattern selects a parameter: a name, a wildcard, the name of a
        module that holds it, a module's class, "head" (the last layer) or "body"."""
        if pattern in ("head", "body"):
            head = max(self.layer_of.values())
            return (self.layer_of[full] == head) == (pattern == "head")
        return (
            fnmatchcase(full, pattern)
            or full.startswith(f"{pattern}.")
            or self.in_module_of_class(full, pattern)
        )

    def in_module_of_class(self, full, kind):
        """Whether a parameter is inside a module of a class, given by its name."""
        return any(
            full.startswith(f"{name}.") and type(module).__name__ == kind
            for name, module in self.modules.items()
        )

    def user(self, arrays):
        """The user's structure with other arrays for the parameters, in order."""
        leaves = list(self.leaves)
        for place, a in zip(self.places, arrays, strict=True):
            leaves[place] = a
        return self.rebuild(leaves)

    def arrays(self, w):
        """The parameters' arrays in a flat vector w (P,), views of it."""
        return [w[part].reshape(self.shapes[name]) for name, part in self.slices.items()]


def repeated(names):
    """The first name that occurs twice."""
    return next(name for i, name in enumerate(names) if name in names[:i])
