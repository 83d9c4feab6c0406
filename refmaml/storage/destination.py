"""Where an output path leads: to a file that may be replaced, or to a stream.

A symbolic link stays: what it points to is written. A device, a pipe or a descriptor
of a process (/dev/stdout, /dev/fd/3, /proc/self/fd/1) is a stream: bytes can only be
appended to it, and nothing may take its place.
"""

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

_DESCRIPTORS = re.compile(r"/dev/fd|/proc/(\d+)(?:/task/\d+)?/fd")
_MAX_LINKS = 40  # as Linux


def destination(path):
    """(path behind all symbolic links, whether a stream is there).

    Raises OSError where the links form a circle.
    """
    path = Path(path)
    for _ in range(_MAX_LINKS):
        folder = os.path.realpath(path.parent)
        path = Path(folder, path.name)
        if path.name.isdecimal() and _DESCRIPTORS.fullmatch(folder):
            os.lstat(path)  # raises OSError where no such descriptor is open
            return path, True
        if not path.is_symlink():
            return path, _is_stream(path)
        path = Path(folder, os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def check_stream(path):
    """Raise OSError unless this process may write to the stream at `path`.

    Nothing is opened: the reader of a pipe would take the closing for the end.
    """
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def write_stream(path, data):
    """Append `data` to the stream at `path`, from `destination`. Raises OSError.

    A descriptor of this process is written to at its own position, behind what the
    process has printed. A pipe without a reader raises OSError: to wait for a reader
    could take for ever.
    """
    descriptors = _DESCRIPTORS.fullmatch(str(path.parent))
    if descriptors and descriptors[1] in (None, str(os.getpid())):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, or None
                stream.flush()
        fd = os.dup(int(path.name))
    else:
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOCTTY", 0)
        try:
            fd = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise OSError(errno.ENXIO, "a pipe that no process reads") from None
            raise
        os.set_blocking(fd, True)
    with open(fd, "wb") as file:
        file.write(data)


def _is_stream(path):
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
