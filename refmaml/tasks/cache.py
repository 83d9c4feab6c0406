"""Arrays that take long to build, kept in the user's cache folder; without one, they are built again."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np

from refmaml.storage.atomic import atomic_write, clear_parts
from refmaml.storage.npz import digest, read_members
from refmaml.storage.zips import require

LIMIT = 1 << 30  # bytes in a file we agree to read
_MEMBER = re.compile(r"[a-z]+\.npy")
_SEAL = "sha"  # the member that holds the sha256 of the ingredients and the other members


def cache_folder():
    """$XDG_CACHE_HOME/refmaml, or ~/.cache/refmaml, as the XDG base directory specification has it."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "refmaml"


def cached(name, ingredients, build, fits):
    """The arrays of `build()`, a dict: from the cache where the same `ingredients` were used before.

    name         the file's first word
    ingredients  whatever the result depends on, with a repr that tells it; hashed into the file's name
    fits         whether a dict of arrays is of the names, shapes and dtypes that `build` makes: a file may be anybody's
    A cache that cannot be read or written costs time and nothing else.
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
    """The arrays in a file, or None where it is missing, damaged, too large or another's."""
    try:
        arrays = read_members(path, _MEMBER, LIMIT, "uU", {_SEAL: 1 << 10})
        require(arrays.pop(_SEAL).tobytes().hex() == digest(recipe, arrays), "another seal")
        return arrays
    except Exception:  # zipfile and NumPy's header parser raise all kinds on damaged bytes
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
