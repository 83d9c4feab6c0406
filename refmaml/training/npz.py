"""Reading an .npz that nobody has to trust: nothing in it is executed, and nothing allocated that the file's own size does not cover."""
import io
import os
import zipfile
from math import prod

import numpy as np

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_members(file, member, limit, kinds):
    """{name: array} of the .npz in an open file, whose members must be uncompressed.

    member  the regular expression every member's name must match; limit: bytes in a file we agree to read
    kinds   the dtype kinds an array may have, as "fu"
    Raises ValueError for what breaks one of these rules, and all kinds of exceptions for damaged bytes.
    """
    size = os.fstat(file.fileno()).st_size
    require(size <= limit, f"{size} bytes, where {limit} is the limit")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = [m.filename for m in members]
        require(len(set(names)) == len(names), "a member twice")
        for m in members:
            require(member.fullmatch(m.filename), f"a member {m.filename[:80]!r}")
            require(m.compress_type == zipfile.ZIP_STORED, f"a compressed member {m.filename}")
        require(sum(m.file_size for m in members) <= size, "members larger than the file")
        return {name.removesuffix(".npy"): read_array(name, archive.read(name), kinds) for name in names}


def read_array(name, data, kinds):
    """The array in the bytes of one .npy, whose header must describe just these bytes."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    require(version in _HEADERS, f"{name} in .npy version {version}")
    shape, _, dtype = _HEADERS[version](stream)
    require(dtype.kind in kinds, f"{name} of dtype {dtype}")
    require(prod(shape) * dtype.itemsize == len(data) - stream.tell(),
            f"{name} of shape {shape} in {len(data)} bytes")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def require(condition, got):
    """Refuse a file; whoever reads it says which, and what was expected."""
    if not condition:
        raise ValueError(got)
