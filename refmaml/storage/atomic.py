"""Atomic writes of files and folders, and the removal of parts that killed processes
left.

Until it is complete, a file is a hidden part beside its place,
.NAME.<32 hex digits>.part, which its writer keeps locked (flock). The kernel drops a
lock when its owner dies. So a part that no process has locked is litter, whichever
process left it, and a part that is locked has a living writer.
"""

import errno
import io
import os
import re
import shutil
import stat
import uuid
from contextlib import contextmanager, suppress

from refmaml.storage.destination import destination, write_stream
from refmaml.storage.locks import try_lock

_PART = re.compile(r"\.(.+)\.[0-9a-f]{32}\.part", re.DOTALL)


@contextmanager
def atomic_write(path, durable=False):
    """A binary file that takes its place at `path` when the block ends without an
    exception.

    path     a pathlib.Path; a symbolic link stays, and what it points to is replaced
    durable  the file and its folder's entry are on disk when the block has ended

    Until then it is a hidden part beside its place, with a name that no other process
    uses; after an exception it is removed. Parts of this file that killed processes
    left are removed first. Into a device or a pipe the bytes are written when the block
    ends. Raises OSError where the folder cannot be written, or a read-only file is at
    `path` (a rename would replace it all the same).
    """
    path, is_stream = destination(path)
    if is_stream:
        memory = io.BytesIO()
        yield memory
        write_stream(path, memory.getbuffer())
        return
    _refuse_read_only(path)
    clear_parts(path.parent, path.name)
    part, file = _new_part(path)
    try:
        with file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.replace(part, path)  # the part is still locked, so it is no litter
        if durable:
            sync_folder(path.parent)  # the rename itself
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path):
    """A folder that takes its place at `path` when the block ends without an exception.

    At `path` there may be nothing, an empty folder, or a symbolic link to one of these.
    Parts are named and removed as in `atomic_write`. Raises OSError where it cannot be
    written.
    """
    path, _ = destination(path)
    clear_parts(path.parent, path.name)
    part, fd = _new_part_folder(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        os.close(fd)
        shutil.rmtree(part, ignore_errors=True)


def clear_parts(folder, name=None):
    """Remove the parts in `folder` that no living process is writing.

    name  only parts of the file of this name
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _PART.fullmatch(entry.name)
            if match and name in (None, match[1]):
                _remove_unless_locked(entry.path)


def sync_folder(path):
    """Bring a folder's entries to disk. Raises OSError.

    Some file systems of virtual machines cannot sync folders; there this does nothing.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS):
            raise
    finally:
        os.close(fd)


def _refuse_read_only(path):
    with suppress(FileNotFoundError):
        if not stat.S_IMODE(os.stat(path).st_mode) & 0o222:
            raise PermissionError(13, "a read-only file")


def _new_part(path):
    """A new part of `path` and its open, locked file."""
    while True:
        part = _part_path(path)
        file = open(part, "xb")  # noqa: SIM115 (the caller closes it)
        try_lock(file.fileno(), wait=True)
        if part.exists():  # no other process removed it before it was locked
            return part, file
        file.close()


def _new_part_folder(path):
    """A new folder that is a part of `path`, and its locked descriptor."""
    while True:
        part = _part_path(path)
        part.mkdir(parents=True)
        with suppress(FileNotFoundError):
            fd = os.open(part, os.O_RDONLY)
            try_lock(fd, wait=True)
            if part.exists():
                return part, fd
            os.close(fd)


def _part_path(path):
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")


def _remove_unless_locked(part):
    with suppress(OSError):  # removed meanwhile, or of another user
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
