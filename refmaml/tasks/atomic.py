"""Writing a file so that nobody ever sees half of it."""
import os
import uuid
from contextlib import contextmanager


@contextmanager
def atomic_write(path):
    """A binary file that takes its place at `path` (a pathlib.Path) when the block ends without an exception.

    Until then it is a hidden file beside it, of a name no other process uses; after an exception it is gone.
    Raises OSError where the folder cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(part, "xb") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
