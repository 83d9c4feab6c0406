"""One writer for a folder: locks that the kernel drops when their owner dies, so that none is ever stale."""

import errno
import os
import re
from contextlib import contextmanager, suppress
from functools import cache

from refmaml.errors import DataError

NAME = ".lock"


def try_lock(fd, wait=False):
    """Lock an open file for this process alone (flock): True; False where another has it; None where the file system has no locks."""
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
    """Within, no other process that asks is in `folder` (a pathlib.Path that exists). Raises DataError where one is, naming it.

    The lock is on a file in the folder, which goes when the block ends; one that a killed process left behind is nobody's and is taken.
    """
    path = folder / NAME
    try:
        fd = _taken(path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder that can be written, got {error.strerror or error}"
        ) from error
    try:
        yield
    finally:
        with suppress(
            OSError
        ):  # a folder that is read-only by now; what is on its way out says more
            if _is_at(fd, path):  # and not another's, who came after somebody had removed ours
                path.unlink()
        os.close(fd)


def is_ours(folder):
    """Whether this process is the sole writer of `folder` still: nobody has removed the folder or its lock since."""
    try:
        return (folder / NAME).read_bytes() == _signature(os.getpid())
    except OSError:
        return False


def _taken(path):
    """The descriptor of the lock's file, ours from now on."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        if try_lock(fd) is False:
            owner = re.match(
                r"process \d+ on [\w.-]+", os.pread(fd, 200, 0).decode(errors="replace")
            )
            os.close(fd)
            raise DataError(
                f"{path.parent}: expected a folder that no other process is writing to, got one where "
                f"{owner[0] if owner else 'another process'} is at work"
            )
        if _is_at(fd, path):  # whoever had it may have removed it before it was ours
            os.ftruncate(fd, 0)
            os.pwrite(fd, _signature(os.getpid()), 0)
            return fd
        os.close(fd)


@cache
def _signature(pid):
    """What stands in the lock of a folder that this process is in, however often its machine is given another name meanwhile."""
    return f"process {pid} on {os.uname().nodename}".encode()


def _is_at(fd, path):
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
