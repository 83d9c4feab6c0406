"""Locks that let one process write to a folder.

The kernel drops a lock when its owner dies, so that no lock is ever stale.
"""

import errno
import os
import re
from contextlib import contextmanager, suppress
from functools import cache

from refmaml.errors import DataError

NAME = ".lock"


def try_lock(fd, wait=False):
    """Lock an open file for this process alone (flock).

    wait  wait until another process gives the lock up
    Returns True; False where another process has the lock; None where the file system
    has no locks.
    """
    try:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return None
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


@contextmanager
def sole_writer(folder):
    """A block in which this process alone writes to `folder`, an existing pathlib.Path.

    The lock is on a file in the folder, which is removed when the block ends. The lock
    file that a killed process left is taken over. Raises DataError where another
    process has the lock, naming that process.
    """
    path = folder / NAME
    try:
        fd = _locked_descriptor(path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be written, got {error.strerror or error}"
        ) from error
    try:
        yield
    finally:
        # Where the folder is read-only by now, the exception on its way says more.
        with suppress(OSError):
            # Not the lock of another process, which came after ours had been removed.
            if _is_at(fd, path):
                path.unlink()
        os.close(fd)


def is_ours(folder):
    """Whether this process is still the sole writer of `folder`.

    False if the folder or its lock was removed since, or another process took it.
    """
    try:
        return (folder / NAME).read_bytes() == _signature(os.getpid())
    except OSError:
        return False


def _locked_descriptor(path):
    """The descriptor of the lock file, locked by this process."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        if try_lock(fd) is False:
            text = os.pread(fd, 200, 0).decode(errors="replace")
            owner = re.match(r"process \d+ on [\w.-]+", text)
            os.close(fd)
            raise DataError(
                f"{path.parent}: expected a folder that no other process is writing to, "
                f"got one where {owner[0] if owner else 'another process'} is at work"
            )
        if _is_at(fd, path):  # its last owner did not remove it before it was locked here
            os.ftruncate(fd, 0)
            os.pwrite(fd, _signature(os.getpid()), 0)
            return fd
        os.close(fd)


@cache
def _signature(pid):
    """The content of a lock file.

    Cached: the machine's name may change during a run.
    """
    return f"process {pid} on {os.uname().nodename}".encode()


def _is_at(fd, path):
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
