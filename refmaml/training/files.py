"""Durable files and folders, and the DataErrors of those that cannot be written or
read.
"""

import json
import os
from contextlib import contextmanager, suppress
from pathlib import Path

from refmaml.errors import DataError
from refmaml.storage.atomic import atomic_write, clear_parts, sync_folder
from refmaml.storage.destination import check_stream, destination

MAX_JSON = 1 << 20  # bytes of JSON to read; refmaml writes no longer files


@contextmanager
def durable_write(path):
    """A binary file that is complete and on disk at `path` when the block has ended.

    After a failure the old file is still there. Raises DataError where it cannot be
    written. See `storage.atomic.atomic_write` for links, devices and pipes.
    """
    try:
        with atomic_write(Path(path), durable=True) as file:
            yield file
    except OSError as error:
        raise unwritable(path, "file", error) from error


def write_json(path, value):
    """Write `value` as indented JSON.

    Raises DataError where `path` cannot be written.
    """
    with durable_write(path) as file:
        file.write((json.dumps(value, indent=2) + "\n").encode())


def read_json(path, description, limit=MAX_JSON):
    """The value in a JSON file of at most `limit` bytes.

    description  what the file should be, for the DataError that is raised where it
                 cannot be read
    """
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(limit))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: expected {description}, got {getattr(error, 'strerror', None) or 'no JSON'}"
        ) from None


def make_folder(path, new=False):
    """The folder `path`, created if it is missing, without parts of killed processes.

    new  raise FileExistsError where it exists already
    Raises DataError where it cannot be written.
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
        # Not a parent folder that is a link to nowhere: that raises FileExistsError
        # too.
        if new and isinstance(error, FileExistsError) and os.path.lexists(path):
            raise
        raise unwritable(path, "folder", error) from error
    return path


def check_writable(path):
    """Raise OSError unless a file can be written at `path`; a file there stays as it
    is.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(21, "a folder")
    target, is_stream = destination(path)
    if is_stream:
        return check_stream(target)
    with suppress(_Discarded), atomic_write(path):
        raise _Discarded


class _Discarded(Exception):
    """Ends an atomic write so that nothing is written."""


def unwritable(path, kind, error):
    """The DataError for an OSError during a write; kind: "file" or "folder"."""
    return DataError(
        f"{path}: expected a {kind} that can be written, got {error.strerror or error}"
    )
