"""Reading an untrusted .npz.

Nothing in it is executed, and no more is allocated than the file's own size covers.
"""

import hashlib
import json
import os
import zipfile
from math import prod

import numpy as np

from refmaml.storage.zips import open_zip, require

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LONGEST_HEADER = 10_000  # bytes, as NumPy's own limit, which it checks after reading


def read_members(path, member, limit, kinds, most=None):
    """{name: array} of the .npz at `path`, whose members must be uncompressed.

    member  the regular expression that every member's name must match
    limit   the most bytes that the file may have
    kinds   the dtype kinds an array may have, as "fu"
    most    {name: the most bytes that its member may have}, for small members
    Arrays are in C order and little-endian. Raises OSError; ValueError where one of
    these rules is broken; any exception for damaged bytes.
    """
    size = os.stat(path).st_size
    require(size <= limit, f"{size} bytes, where {limit} is the limit")
    with open_zip(path, table=0) as archive:
        for m in archive.infolist():
            require(member.fullmatch(m.filename), f"a member {m.filename[:80]!r}")
            require(m.compress_type == zipfile.ZIP_STORED, f"a compressed member {m.filename}")
            require(
                m.file_size == m.compress_size,
                f"{m.filename} of {m.file_size} bytes stored in {m.compress_size}",
            )
            allowed = (most or {}).get(m.filename.removesuffix(".npy"), limit)
            require(
                m.file_size <= allowed,
                f"{m.filename} of {m.file_size} bytes, where {allowed} is the limit",
            )
        for m in archive.infolist():  # every header before any of the numbers
            check_header(archive, m, kinds)
        return {m.filename.removesuffix(".npy"): read_array(archive, m) for m in archive.infolist()}


def check_header(archive, member, kinds):
    """Raise ValueError unless a .npy's header describes exactly the bytes it has."""
    name = member.filename
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        require(version in _HEADERS, f"{name} in .npy version {version}")
        width = 2 if version == (1, 0) else 4
        length = int.from_bytes(stream.peek(width)[:width], "little")
        require(length <= _LONGEST_HEADER, f"{name} with a header of {length} bytes")
        shape, fortran, dtype = _HEADERS[version](stream)
        at = stream.tell()
    require(dtype.kind in kinds and dtype.itemsize > 0, f"{name} of dtype {dtype}")
    require(
        dtype.byteorder != ">" and not (fortran and len(shape) > 1),
        f"{name} that is not little-endian in C order",
    )
    require(
        all(type(n) is int and n >= 0 for n in shape)
        and prod(shape) * dtype.itemsize == member.file_size - at,
        f"{name} of shape {shape} in {member.file_size} bytes",
    )


def read_array(archive, member):
    """The array of a member with a checked header, read without a second copy."""
    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def digest(manifest, arrays):
    """sha256 in hexadecimal, over a JSON value and named arrays in sorted order."""
    h = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode())
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        h.update(f"{name} {a.dtype.str} {a.shape}\n".encode())
        h.update(a.data)
    return h.hexdigest()
