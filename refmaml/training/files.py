"""Files that survive a crash, and the errors of those that cannot be written."""
import json
import os
from contextlib import contextmanager
from pathlib import Path

from refmaml.errors import DataError
from refmaml.tasks.atomic import atomic_write


@contextmanager
def durable_write(path):
    """A binary file that is at `path`, whole and on disk, once the block has ended; or else the old one.

    Raises DataError where it cannot be written.
    """
    path = Path(path)
    try:
        with atomic_write(path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)                              # the rename itself
        finally:
            os.close(folder)
    except OSError as error:
        raise unwritable(path, "file", error) from error


def write_json(path, value):
    """`value` as indented JSON. Raises DataError where `path` cannot be written."""
    with durable_write(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def make_folder(path, names=()):
    """The folder `path`, made if need be, rid of halves of files `names` that a killed process left.

    Raises DataError.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name in names:
            for part in path.glob(f".{name}.*.part"):     # as atomic_write calls them
                part.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, "folder", error) from error
    return path


def unwritable(path, what, error):
    """The DataError for an OSError met while writing."""
    return DataError(f"{path}: expected a {what} that can be written, got {error.strerror or error}")
