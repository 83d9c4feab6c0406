"""Numbers in any container: arrays, dicts, lists, tuples, pytrees; of any framework.

A Tree is the structure of one value. It makes a vector (n,) in float64 of a value, and
a value of a vector: fresh arrays in the framework, on the device and with the
`requires_grad` of the original.
"""

import sys
from typing import NamedTuple

import numpy as np

from refmaml.doctor.frameworks import first_line
from refmaml.doctor.own_loss.trees import children, with_children
from refmaml.errors import ArgumentError, expect

PRECISIONS = ("float64", "float32")


class Leaf(NamedTuple):
    """One array of a tree: its name, its shape, and where it lies in a vector."""

    name: str
    shape: tuple
    place: slice


def framework_of(value):
    """The library of an array, such as "numpy"; "" for other values."""
    module = type(value).__module__.partition(".")[0]
    if isinstance(value, np.ndarray | np.generic):
        return "numpy"
    known = {"torch": "torch", "jax": "jax", "jaxlib": "jax", "cupy": "cupy"}
    is_array = hasattr(value, "shape") and hasattr(value, "dtype")
    return known.get(module, "") if is_array else ""


def kind_of(value):
    """The name of an array's type of numbers, such as "float32"."""
    return str(value.dtype).rpartition(".")[2].strip("'>")


def is_number(value):
    """Whether a value is Python's int or float."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def mapped(value, function, name=""):
    """The tree with function(name, leaf) for each leaf; None stays."""
    found = children(value)
    if found is not None:
        parts = [mapped(v, function, joined(name, key)) for key, v in found]
        return with_children(value, parts)
    if value is None:
        return None
    if not framework_of(value) and not is_number(value) and is_registered(value):
        import jax

        leaves, structure = jax.tree_util.tree_flatten(value)
        parts = [mapped(leaf, function, joined(name, i)) for i, leaf in enumerate(leaves)]
        return jax.tree_util.tree_unflatten(structure, parts)
    return function(name, value)


def is_registered(value):
    """Whether JAX knows a value as a container of others."""
    if "jax" not in sys.modules:
        return False
    import jax

    return not jax.tree_util.all_leaves([value])


def joined(name, key):
    """The place of a child: "layers.0.weight"."""
    return f"{name}.{key}" if name else str(key)


def numpy_of(value, what):
    """Any number or array of floating-point numbers as float64.

    Raises ArgumentError in one line.
    """
    if is_number(value):
        return np.float64(value)
    expect(framework_of(value), what, "an array", lambda: type(value).__name__)
    kind = kind_of(value)
    expect(kind.startswith(("float", "bfloat")), what, "floating-point numbers", lambda: f"{kind}")
    try:
        if framework_of(value) == "torch":
            value = value.detach().cpu().double().numpy()
        elif framework_of(value) == "cupy":
            value = value.get()
        return np.array(value, np.float64)
    except Exception as error:
        raise ArgumentError(
            f"{what}: expected an array that can be read, got {first_line(error)}"
        ) from None


class Tree:
    """The structure of a value that holds floating-point numbers.

    template    the value itself
    leaves      a Leaf for each array, in order
    size        how many numbers it has
    Raises ArgumentError for a value without any, and for other kinds of numbers.
    """

    def __init__(self, template, argument):
        self.template, self.argument = template, argument
        self.leaves, self.size, parts = [], 0, []
        module = hasattr(template, "named_parameters")
        wanted = "numbers in a container, such as dict(module.named_parameters())"
        expect(not module, argument, wanted, "a module")

        def visit(name, leaf):
            a = numpy_of(leaf, f"{argument}[{name!r}]" if name else argument)
            self.leaves.append(Leaf(name, a.shape, slice(self.size, self.size + a.size)))
            self.size += a.size
            parts.append(np.ravel(a))

        mapped(template, visit)
        expect(self.size, argument, "at least one number", lambda: described(template))
        self.start = np.concatenate(parts)
        bad = not np.isfinite(self.start).all()
        expect(not bad, argument, "finite numbers", "NaN or infinity")

    def named(self, vector):
        """{name: array} of a vector."""
        return {leaf.name: vector[leaf.place].reshape(leaf.shape) for leaf in self.leaves}

    def flat(self, value, what):
        """(vector (n,), names that were None) of a value with this structure.

        A flat vector of the right length is taken too. Raises ArgumentError in one
        line.
        """
        if framework_of(value) and children(self.template) is not None:
            a = np.ravel(numpy_of(value, what))
            wanted = f"{described(self.template)}, or a flat vector of {self.size}"
            expect(a.size == self.size, what, wanted, lambda: f"shape {tuple(value.shape)}")
            return a, ()
        found = leaves_of(value)
        missing = [leaf.name for leaf in self.leaves if leaf.name not in found]
        expect(
            not missing,
            what,
            f"the structure of {self.argument}",
            lambda: f"nothing for {missing[0]!r}" if missing[0] else described(value),
        )
        absent = tuple(leaf.name for leaf in self.leaves if found[leaf.name] is None)
        return np.concatenate([self.read(leaf, found, what) for leaf in self.leaves]), absent

    def read(self, leaf, found, what):
        """One array of a value as (n,); None is 0."""
        value, name = found[leaf.name], f"{what}[{leaf.name!r}]" if leaf.name else what
        if value is None:
            return np.zeros(leaf.place.stop - leaf.place.start)
        a = numpy_of(value, name)
        fits = a.shape == leaf.shape or a.size == 1 == leaf.place.stop - leaf.place.start
        expect(fits, name, f"shape {leaf.shape}", lambda: f"shape {a.shape}")
        return np.ravel(a)

    def build(self, vector, precision="float64"):
        """A value of a vector: fresh arrays with numbers of that precision."""
        places = iter(self.leaves)

        def make(name, leaf):
            spot = next(places)
            return like(leaf, vector[spot.place].reshape(spot.shape), precision)

        return mapped(self.template, make)


def leaves_of(value):
    """{name: leaf} of a value, None among them."""
    found = {}

    def visit(part, name):
        inner = children(part)
        if inner is None:
            found[name] = part
        else:
            for key, child in inner:
                visit(child, joined(name, key))

    if children(value) is None and value is not None and not framework_of(value):
        mapped(value, lambda name, leaf: found.setdefault(name, leaf))
    else:
        visit(value, "")
    return found


def like(leaf, a, precision):
    """A fresh array with the numbers a, in the framework and on the device of one."""
    if is_number(leaf):
        return float(a)
    a = np.array(a, precision)
    library = framework_of(leaf)
    if library == "torch":
        import torch

        made = torch.from_numpy(a).to(leaf.device)
        return made.requires_grad_(leaf.requires_grad)
    if library == "jax":
        import jax.numpy as jnp

        return jnp.asarray(a)
    if library == "cupy":
        import cupy

        return cupy.array(a)
    return np.float64(a) if isinstance(leaf, np.generic) else a


def in_precision(value, precision):
    """Data with its floating-point arrays in that precision; all else as it is."""

    def cast(name, leaf):
        if not framework_of(leaf) or not kind_of(leaf).startswith("float"):
            return leaf
        return like(leaf, numpy_of(leaf, name), precision)

    return mapped(value, cast)


def libraries(*values):
    """The frameworks of all arrays in some values."""
    found = set()
    for value in values:
        mapped(value, lambda name, leaf: found.add(framework_of(leaf)))
    return found - {""}


def described(value):
    """A value's type and length, for an error message."""
    if framework_of(value):
        return f"an array of shape {tuple(value.shape)}"
    size = f" of {len(value)}" if hasattr(value, "__len__") else ""
    return f"{type(value).__name__}{size}"
