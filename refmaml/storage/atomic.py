"""Writing a file or a folder so that nobody ever sees half of it, and clearing away the halves that killed processes left.

Until it is whole it is a hidden one beside its place, .NAME.<32 hex digits>.part, which its writer keeps locked (flock). The
kernel drops a lock when its owner dies, however it dies: a part that nobody has locked is litter, whatever the number of the process
that left it, and a part that is locked belongs to somebody alive.
"""

import os
import re
import shutil
import stat
import uuid
from contextlib import contextmanager, suppress

from refmaml.storage.locks import try_lock

_PART = re.compile(r"\.(.+)\.[0-9a-f]{32}\.part", re.DOTALL)


@contextmanager
def atomic_write(path):
    """A binary file that takes its place at `path` (a pathlib.Path) when the block ends without an exception.

    Until then it is a hidden file beside it, of a name no other process uses; after an exception it is gone. What killed processes
    left of this file is cleared first. Raises OSError where the folder cannot be written, or what is at `path` is a read-only file or no
    file (/dev/null): a rename would replace it all the same, and nobody wants that.
    """
    with suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if not mode & 0o222:
            raise PermissionError(13, "a read-only file")
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(22, "a device or a pipe")
    clear_parts(path.parent, path.name)
    part, file = _new_part(path)
    try:
        with file:
            yield file
            file.flush()
            os.replace(part, path)  # still locked: nobody takes it for litter
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path):
    """A folder that takes its place at `path`, where nothing or an empty folder is, when the block ends without an exception.

    Until then, and after an exception, as with `atomic_write`. Raises OSError where it cannot be written.
    """
    clear_parts(path.parent, path.name)
    part, fd = _new_part_folder(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        os.close(fd)
        shutil.rmtree(part, ignore_errors=True)


def clear_parts(folder, name=None):
    """Remove the parts in `folder`, of one name or of all, that no living process is writing."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _PART.fullmatch(entry.name)
            if match and name in (None, match[1]):
                _remove_unless_locked(entry.path)


def _new_part(path):
    """A new part of `path` and its open, locked file."""
    while True:
        part = _part_of(path)
        file = open(part, "xb")  # noqa: SIM115 (closed by whoever asked for it)
        try_lock(file.fileno(), wait=True)
        if part.exists():  # not cleared away in the moment before it was locked
            return part, file
        file.close()


def _new_part_folder(path):
    """A new folder that is a part of `path`, and the descriptor that keeps it locked."""
    while True:
        part = _part_of(path)
        part.mkdir(parents=True)
        with suppress(FileNotFoundError):
            fd = os.open(part, os.O_RDONLY)
            try_lock(fd, wait=True)
            if part.exists():
                return part, fd
            os.close(fd)


def _part_of(path):
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")


def _remove_unless_locked(part):
    with suppress(OSError):  # gone meanwhile, or somebody else's
        is_folder = os.path.isdir(part)
        fd = os.open(
            part,
            (os.O_RDONLY if is_folder else os.O_RDWR)
            | getattr(os, "O_NOFOLLOW", 0)
            | getattr(os, "O_NONBLOCK", 0),
        )
        try:
            if try_lock(fd):
                shutil.rmtree(part) if is_folder else os.unlink(part)
        finally:
            os.close(fd)
