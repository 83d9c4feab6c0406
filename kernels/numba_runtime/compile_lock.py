"""A lock on one compilation, held by one process at a time.

The kernel drops the lock of a process that ends, so that no lock is ever stale. Where
the file system has no locks, or the folder is read-only, every process compiles.
"""

import os
from contextlib import suppress
from time import monotonic, sleep

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

INTERVAL = 0.02  # seconds between two attempts
LONGEST = 600.0  # seconds of waiting; a compilation that takes longer is not waited for


class CompileLock:
    """The lock of a path, or no lock if the path is None."""

    def __init__(self, path):
        self.path, self.file = path, None

    def acquire(self, wait):
        """Whether this process may compile: False where another one does.

        wait: try again until the other process has finished.
        """
        if fcntl is None or self.path is None:
            return True
        try:
            self.file = open(self.path, "ab")  # noqa: SIM115 (closed by `release`)
        except OSError:
            return True
        return self.locked(monotonic() + LONGEST if wait else 0)

    def locked(self, deadline):
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if monotonic() >= deadline:
                    self.close()
                    return deadline > 0
                sleep(INTERVAL)
            except OSError:  # a file system without locks
                return True

    def release(self):
        """Gives the lock up and removes its file. Without a lock, nothing happens."""
        if self.file is not None:
            with suppress(OSError):
                os.unlink(self.path)
            with suppress(OSError):  # a forked child may have the file open as well
                fcntl.flock(self.file, fcntl.LOCK_UN)
            self.close()

    def close(self):
        self.file.close()
        self.file = None
