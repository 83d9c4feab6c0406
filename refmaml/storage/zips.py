"""Opening files and zip archives that somebody else may have made to do harm.

Python's zipfile reads an archive's table of contents whole and makes an object of each entry, unpacks bzip2 and LZMA without bounds,
and (before 3.11.8 and 3.12.2) lets members lie over one another, so that a small file holds the same bytes many times. Here a table has
a largest size, members are stored or deflated (which unpacks no further than asked) and no more together than the file, and only a
regular file is opened: a pipe would wait for ever.
"""

import io
import os
import stat
import zipfile
from contextlib import contextmanager

_SMALLEST_TABLE = 1 << 17  # zipfile looks for the table's end in the last 65,557 bytes


def require(condition, got):
    """Refuse a file; whoever reads it says which, and what was expected."""
    if not condition:
        raise ValueError(got)


def open_regular(path):
    """The regular file at `path`, open for reading without a buffer. Raises OSError, and ValueError for anything else."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        require(stat.S_ISREG(os.fstat(fd).st_mode), "something that is no regular file")
        return io.FileIO(fd)
    except BaseException:
        os.close(fd)
        raise


def read_small(path, limit):
    """The bytes of a file of at most `limit`. Raises OSError and ValueError."""
    with io.BufferedReader(open_regular(path)) as file:
        data = file.read(limit + 1)
    require(len(data) <= limit, f"more than {limit} bytes")
    return data


@contextmanager
def open_zip(path, table, most=None):
    """The zipfile.ZipFile at `path`, its members stored or deflated, none twice.

    table  bytes its table of contents may have, of 46 and a name for each member
    most   bytes its members may have together, unpacked
    Raises OSError, ValueError and zipfile.BadZipFile, and for damaged bytes all kinds of exceptions.
    """
    with _Bounded(open_regular(path)) as file:
        file.most = max(table, _SMALLEST_TABLE)
        with zipfile.ZipFile(file) as archive:
            file.most = None
            members = archive.infolist()
            require(len({m.filename for m in members}) == len(members), "a member twice")
            for m in members:
                require(
                    m.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
                    f"a member in compression {m.compress_type}",
                )
            size, packed = os.fstat(file.fileno()).st_size, sum(m.compress_size for m in members)
            require(packed <= size, f"members of {packed} bytes in a file of {size}")
            total = sum(m.file_size for m in members)
            require(
                most is None or total <= most,
                f"members of {total} bytes, where {most} is the limit",
            )
            yield archive


class _Bounded(io.BufferedReader):
    """A reader that refuses to read more than `most` bytes at once, where that is set."""

    most = None

    def read(self, size=-1):
        if self.most is not None:
            left = os.fstat(self.fileno()).st_size - self.tell()
            wanted = left if size is None or size < 0 else min(size, left)
            require(
                wanted <= self.most,
                f"a table of contents of {wanted} bytes, where {self.most} is the limit",
            )
        return super().read(size)
