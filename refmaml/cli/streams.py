"""The standard streams of the process, made safe to write to."""

import os
import sys
from contextlib import suppress


def prepare_streams():
    """Open missing standard streams on the null device; let them escape odd characters.

    A file that is opened while descriptor 1 or 2 is closed gets that number, and
    messages would be written into it. A character that a stream's encoding lacks
    (ASCII, or a file name that is no UTF-8) is written as a backslash escape instead of
    raising an error.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        _open_descriptor(fd)
        stream = getattr(sys, name)
        if stream is None:
            stream = open(fd, "w" if fd else "r", closefd=False)  # noqa: SIM115 (stays open)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
        if fd and hasattr(stream, "reconfigure"):
            with suppress(ValueError):  # closed
                stream.reconfigure(errors="backslashreplace")


def _open_descriptor(fd):
    try:
        os.fstat(fd)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
        os.set_inheritable(fd, True)
