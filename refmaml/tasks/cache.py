"""A cache of arrays that take long to build, in the user's cache folder."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np

from refmaml.storage.atomic import atomic_write, clear_parts
from refmaml.storage.npz import digest, read_members
from refmaml.storage.zips import require

LIMIT = 1 << 30  # bytes; a larger file is not read
_MEMBER = re.compile(r"[a-z]+\.npy")
_SEAL = "sha"  # this member holds the sha256 of ingredients and other members


def cache_folder():
    """$XDG_CACHE_HOME/refmaml, or ~/.cache/refmaml (XDG base directories)."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "refmaml"


def cached(name, ingredients, build, fits):
    """The arrays of `build()`, a dict; from the cache if `ingredients` are in it.

    name         the first part of the file's name
    ingredients  all that the result depends on; its repr is hashed into the file's name
    fits         a function: whether a dict of arrays has the names, shapes and dtypes
                 that `build` makes. The file may have another origin
    If the cache cannot be read or written, the arrays are built again; nothing is
    raised.
    """
    recipe = hashlib.sha256(repr(ingredients).encode()).hexdigest()
    try:
        path = cache_folder() / f"{name}-{recipe}.npz"
    except RuntimeError:  # Path.home(): this user has no home folder
        return build()
    arrays = _load(path, recipe)
    if arrays is None or not fits(arrays):
        arrays = build()
        _store(path, recipe, arrays)
    return arrays


def _load(path, recipe):
    """The arrays in a file; None if it is missing, damaged, too large or not sealed."""
    try:
        arrays = read_members(path, _MEMBER, LIMIT, "uU", {_SEAL: 1 << 10})
        require(arrays.pop(_SEAL).tobytes().hex() == digest(recipe, arrays), "another seal")
        return arrays
    except Exception:  # damaged bytes can raise any type in zipfile and NumPy
        return None


def _store(path, recipe, arrays):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_parts(path.parent)
        with atomic_write(path) as file:
            np.savez(
                file,
                **arrays,
                **{_SEAL: np.frombuffer(bytes.fromhex(digest(recipe, arrays)), np.uint8)},
            )
    except OSError:  # a read-only or full disk
        pass
