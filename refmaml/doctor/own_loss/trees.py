"""Nested dicts, lists and tuples of arrays, with a name for every array in them."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import NamedTuple

import numpy as np

from refmaml.doctor.frameworks import first_line
from refmaml.errors import ArgumentError, expect


class Tree(NamedTuple):
    """names   of the leaves: keys and places, with dots between them, "conv.0.weight"
    leaves     in the order of the names
    rebuild    rebuild(leaves) -> a value of the same structure
    """

    names: list
    leaves: list
    rebuild: Callable


def tree_of(value, framework=""):
    """The Tree of a value. With framework "jax" also of classes registered with JAX."""
    if framework == "jax":
        return jax_tree(value)
    pairs = list(walk(value, ()))
    names = [".".join(map(str, path)) for path, _ in pairs]

    def rebuild(leaves):
        return rebuilt(value, iter(leaves))

    return Tree(names, [leaf for _, leaf in pairs], rebuild)


def children(value):
    """[(name, child)] of a container, or None for a value that is none."""
    if isinstance(value, Mapping):
        return list(value.items())
    if hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    return list(enumerate(value)) if isinstance(value, list | tuple) else None


def with_children(value, parts):
    """A container like `value` with other children."""
    if isinstance(value, dict):
        new = copy(value)  # keeps the class, as OrderedDict and defaultdict
        new.update(zip(value, parts, strict=True))
        return new
    if isinstance(value, Mapping):
        return type(value)(dict(zip(value, parts, strict=True)))
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def walk(value, path):
    """(path, leaf) of every leaf, in order."""
    found = children(value)
    if found is None:
        yield path, value
    else:
        for key, item in found:
            yield from walk(item, (*path, key))


def rebuilt(value, leaves):
    """A value of the structure of `value` with other leaves."""
    found = children(value)
    if found is None:
        return next(leaves)
    return with_children(value, [rebuilt(item, leaves) for _, item in found])


def jax_tree(value):
    """The Tree of a value, as JAX flattens it."""
    from jax import tree_util

    pairs, structure = tree_util.tree_flatten_with_path(value)
    names = [".".join(map(key_text, path)) for path, _ in pairs]
    return Tree(names, [leaf for _, leaf in pairs], structure.unflatten)


def key_text(key):
    """A key of one of JAX's paths as text."""
    for field in ("key", "name", "idx"):
        if hasattr(key, field):
            return str(getattr(key, field))
    return str(key)


# ---- arrays --------------------------------------------------------------------------


def is_array(leaf):
    """Whether a leaf is an array of any framework."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype") and hasattr(leaf, "__array__")


def is_float(leaf):
    """Whether a NumPy leaf holds real numbers that are not integers."""
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"


def to_numpy(leaf, what):
    """A leaf as a fresh NumPy array, float numbers as float64.

    A leaf that is no array stays as it is. Raises ArgumentError in one line.
    """
    if not is_array(leaf):
        return leaf
    try:
        if hasattr(leaf, "detach"):  # a tensor, on any device and in any precision
            leaf = leaf.detach().cpu()
            leaf = (leaf.double() if leaf.is_floating_point() else leaf).numpy()
        a = np.array(leaf)
    except Exception as error:
        raise ArgumentError(
            f"{what}: expected an array that can be read, got {first_line(error)}"
        ) from None
    known = a.dtype.kind in "fiub"
    # JAX's bfloat16 is a kind of its own to NumPy
    if not known and a.dtype.name == "bfloat16":
        return a.astype(np.float64)
    expect(known or a.dtype.kind == "c", what, "numbers", lambda: f"dtype {a.dtype}")
    return a.astype(np.float64) if a.dtype.kind == "f" else a


def map_leaves(function, value, framework=""):
    """The value with function(leaf) for every leaf."""
    tree = tree_of(value, framework)
    return tree.rebuild([function(leaf) for leaf in tree.leaves])
