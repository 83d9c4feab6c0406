"""Nested dicts, lists and tuples of arrays, with a name for every array in them."""

from collections.abc import Callable, Mapping
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


def walk(value, path):
    """(path, leaf) of every leaf, in order."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from walk(item, (*path, key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from walk(item, (*path, place))
    else:
        yield path, value


def rebuilt(value, leaves):
    """A value of the structure of `value` with other leaves."""
    if isinstance(value, Mapping):
        items = {key: rebuilt(item, leaves) for key, item in value.items()}
        return items if type(value) is dict else type(value)(items)
    if isinstance(value, list | tuple):
        items = [rebuilt(item, leaves) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return next(leaves)


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
