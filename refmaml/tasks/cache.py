"""Arrays that take long to build, kept in the user's cache folder; without one, they are built again."""
import hashlib
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from refmaml.tasks.atomic import atomic_write

# What reading a missing, truncated or foreign .npz can raise.
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile,
               zlib.error)


def cache_folder():
    """$XDG_CACHE_HOME/refmaml, or ~/.cache/refmaml, as the XDG base directory specification has it."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "refmaml"


def cached(name, ingredients, build):
    """The arrays of `build()`, a dict: from the cache where the same `ingredients` were used before.

    name         the file's first word
    ingredients  whatever the result depends on, with a repr that tells it; hashed into the file's name
    A cache that cannot be read or written costs time and nothing else.
    """
    try:
        path = cache_folder() / f"{name}-{hashlib.sha256(repr(ingredients).encode()).hexdigest()}.npz"
    except RuntimeError:            # Path.home(): this user has no home folder
        return build()
    arrays = _load(path)
    if arrays is None:
        arrays = build()
        _store(path, arrays)
    return arrays


def _load(path):
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except _UNREADABLE:
        return None


def _store(path, arrays):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **arrays)
    except OSError:                 # a read-only or full disk
        pass
