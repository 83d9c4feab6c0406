"""Opening untrusted files and zip archives.

Python's zipfile reads an archive's whole table of contents and makes an object of each
entry. It unpacks bzip2 and LZMA without bounds. Before 3.11.8 and 3.12.2 it lets
members overlap, so that a small file holds the same bytes many times. This module
limits the size of the table, accepts stored and deflated members only (zipfile unpacks
these no further than requested), requires that members together are no larger than the
file, and opens regular files only: reading a pipe could wait for ever.
"""

import io
import os
import stat
import zipfile
from contextlib import contextmanager

_SMALLEST_TABLE = 1 << 17  # zipfile looks for the table's end in the last 65,557 bytes


def require(condition, got):
    """Raise ValueError(got) unless `condition` holds. The caller adds the path."""
    if not condition:
        raise ValueError(got)


def open_regular(path):
    """The regular file at `path`, open for reading without a buffer.

    Raises OSError; ValueError where something else is there.
    """
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        require(stat.S_ISREG(os.fstat(fd).st_mode), "something that is no regular file")
        return io.FileIO(fd)
    except BaseException:
        os.close(fd)
        raise


def read_small(path, limit):
    """The bytes of a regular file that has at most `limit`.

    Raises OSError, ValueError.
    """
    with io.BufferedReader(open_regular(path)) as file:
        data = file.read(limit + 1)
    require(len(data) <= limit, f"more than {limit} bytes")
    return data


@contextmanager
def open_zip(path, table, most=None):
    """The zipfile.ZipFile at `path`. Its members are stored or deflated, none twice.

    table  the most bytes of its table of contents: 46 and a name for each member
    most   the most bytes of all members together, unpacked
    Raises OSError, ValueError and zipfile.BadZipFile; any exception for damaged bytes.
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
    """A reader that refuses to read more than `most` bytes at once, if set."""

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
