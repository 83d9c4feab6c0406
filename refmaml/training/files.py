"""Files that survive a crash, and the errors of those that cannot be written."""

import errno
import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

from refmaml.errors import DataError
from refmaml.storage.atomic import atomic_write, clear_parts

MOST = 1 << 20  # bytes of JSON that we read: what is longer is none of ours


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
        sync_folder(path.parent)  # the rename itself
    except OSError as error:
        raise unwritable(path, "file", error) from error


def write_json(path, value):
    """`value` as indented JSON. Raises DataError where `path` cannot be written."""
    with durable_write(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def read_json(path, what, most=MOST):
    """The value in a JSON file of at most `most` bytes; `what` it is, for who reads the DataError, raised where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(most))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected {what}, got {getattr(error, 'strerror', None) or 'no JSON'}"
        ) from None


def sync_folder(path):
    """Have a folder's entries on disk, where its file system knows how (some of virtual machines do not). Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS):
            raise
    finally:
        os.close(fd)


def make_folder(path, new=False):
    """The folder `path`, made if need be, rid of the halves of files that killed processes left.

    new  it must not exist yet: FileExistsError
    Raises DataError.
    """
    path = Path(path)
    try:
        if new or not path.exists():
            path.mkdir(parents=True, exist_ok=not new)
            sync_folder(path.parent)
        if not path.is_dir():
            raise NotADirectoryError(20, "something that is no folder")
        clear_parts(path)
    except OSError as error:
        if (
            new and isinstance(error, FileExistsError) and os.path.lexists(path)
        ):  # and not a parent that is a link to nowhere
            raise
        raise unwritable(path, "folder", error) from error
    return path


def require_writable(path):
    """Raise DataError unless a file could be written at `path`: asked before the work whose result is to stand there."""
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "a folder")
        with suppress(ZeroDivisionError), atomic_write(path):
            raise ZeroDivisionError  # the part goes, what stands there stays
    except OSError as error:
        raise unwritable(path, "file", error) from error


def unwritable(path, what, error):
    """The DataError for an OSError met while writing."""
    return DataError(
        f"{path}: expected a {what} that can be written, got {error.strerror or error}"
    )
