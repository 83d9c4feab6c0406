"""Bytes of malicious files, and the functions that make them."""

import io
import struct
import zipfile
import zlib

import numpy as np

MEMBER = "images_background/Magi/character01/0001_01.png"


def header(text, version=b"\x01\x00"):
    """A .npy with the given header and no data."""
    text = text.encode().ljust(118) + b"\n"
    return (
        b"\x93NUMPY"
        + version
        + len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
        + text
    )


def npy(a):
    stream = io.BytesIO()
    np.save(stream, a)
    return stream.getvalue()


def packed(members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows, extra=b""):
    """A one-bit PNG whose header states width x height pixels."""
    about = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", about)
        + extra
        + chunk(b"IDAT", zlib.compress(bytes(rows), 9))
        + chunk(b"IEND", b"")
    )


def good_png():
    return png(105, 105, 15 * 105)


def drawn(first=None):
    """The members of an archive of one character, its first drawing given."""
    return [
        (
            f"images_background/Magi/character01/0001_{d:02d}.png",
            first if first and d == 1 else good_png(),
        )
        for d in range(1, 21)
    ]


def pickled():
    stream = io.BytesIO()
    np.save(stream, np.array([print], dtype=object), allow_pickle=True)
    return stream.getvalue()


def nested(levels=5):
    data = bytes(10 << 20)
    for _ in range(levels):
        data = packed([("meta.npy", data)], zipfile.ZIP_DEFLATED)
    return data


def one_in_the_other(members=130, size=1 << 20):
    """Members that contain one another, each with a right checksum.

    A reader would read one megabyte 130 times.
    """
    names, data, sums = (
        [f"state.m{i}.npy".encode() for i in range(members)],
        npy(np.zeros(size, np.uint8)),
        [],
    )
    for name in reversed(names):
        about = struct.pack(
            "<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(name), 0
        )
        whole = b"PK\x03\x04" + about + name + data
        sums, data = [(name, about, len(whole)), *sums], npy(np.frombuffer(whole, np.uint8))
    table = b"".join(
        b"PK\x01\x02\x14\0" + about + struct.pack("<HHHII", 0, 0, 0, 0, sums[0][2] - length) + name
        for name, about, length in sums
    )
    return (
        whole
        + table
        + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, members, members, len(table), len(whole), 0)
    )


# Bytes of an .npz that every reader of arrays must refuse: {what: bytes}.
ARRAYS = {
    "empty": b"",
    "text": b"hello",
    "truncated": packed([("meta.npy", npy(np.zeros(1000)))])[:4000],
    "raw pickle": b"\x80\x04K\x01.",
    "object array": packed([("meta.npy", pickled())]),
    "deflate bomb": packed([("meta.npy", npy(np.zeros(1 << 25, np.uint8)))], zipfile.ZIP_DEFLATED),
    "bzip2 bomb": packed([("meta.npy", npy(np.zeros(1 << 25, np.uint8)))], zipfile.ZIP_BZIP2),
    "nested zips": nested(),
    "zip in a zip, stored": packed([("meta.npy", nested(1))]),
    "many members": packed([(f"state.m{i}.npy", b"") for i in range(30_000)]),
    "one in the other": one_in_the_other(),
    "a name that leads out": packed([("../../meta.npy", npy(np.zeros(3)))]),
    "an absolute name": packed([("/etc/meta.npy", npy(np.zeros(3)))]),
    "a name of control characters": packed([("meta\x1b[2J\n.npy", npy(np.zeros(3)))]),
    "8 TB": packed(
        [
            (
                "meta.npy",
                header("{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}"),
            )
        ]
    ),
    "more elements than 64 bits": packed(
        [("meta.npy", header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**62}, 8)}}"))]
    ),
    "negative shape": packed(
        [
            (
                "meta.npy",
                header("{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -4)}") + bytes(64),
            )
        ]
    ),
    "elements without size": packed(
        [
            (
                "meta.npy",
                header("{'descr': '<U0', 'fortran_order': False, 'shape': (1099511627776,)}"),
            )
        ]
    ),
    "Fortran order": packed([("meta.npy", npy(np.asfortranarray(np.ones((2, 3)))))]),
    "big-endian": packed([("meta.npy", npy(np.ones(3, ">f8")))]),
    "a parenthesis": packed([("meta.npy", header("("))]),
    "brackets in brackets": packed([("meta.npy", header("[" * 117))]),
    "a header of 4 GB": packed([("meta.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100))]),
    "no fields": packed([("meta.npy", header("{}"))]),
    "structured": packed([("meta.npy", npy(np.zeros(2, "f4,f8")))]),
    "complex": packed([("meta.npy", npy(np.zeros(2, complex)))]),
}

# Archives that are not Omniglot: {what: bytes}.
TEXT_BOMB = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(30 << 20), 9))
ARCHIVES = {
    "a picture of 30,000 x 30,000 pixels": packed(drawn(png(30_000, 30_000, 1000))),
    "a picture of 2^31 x 2^31 pixels": packed(drawn(png(2**31 - 1, 2**31 - 1, 1000))),
    "a picture of no pixels": packed(drawn(png(0, 0, 10))),
    "a text that unpacks to 30 MB": packed(drawn(png(105, 105, 1575, TEXT_BOMB))),
    "a picture that unpacks to too much": packed(drawn(bytes(1 << 25)), zipfile.ZIP_DEFLATED),
    "pictures in bzip2": packed(drawn(bytes(1 << 25)), zipfile.ZIP_BZIP2),
    "all together too much": packed(
        [*drawn(), *((f"{i}.bin", bytes(1 << 24)) for i in range(5))], zipfile.ZIP_DEFLATED
    ),
    "many members": packed([*drawn(), *((f"{i}", b"") for i in range(70_000))]),
    "a name that leads out": packed([*drawn(), ("../../etc/passwd", b"")]),
    "a name that leads out on the way": packed(
        [*drawn(), ("images_background/../x/character01/1.png", good_png())]
    ),
    "an absolute name": packed([*drawn(), ("/etc/passwd", b"")]),
    "a name of control characters": packed(
        [*drawn(), ("images_background/\x1b[2J\n/c/1.png", b"")]
    ),
    "a backslash": packed([*drawn(), ("images_background\\..\\x", b"")]),
    "21 drawings": packed([*drawn(), (MEMBER.replace("01.png", "21.png"), good_png())]),
    "another PNG's colours": packed(
        drawn(good_png().replace(b"\x01\0\0\0\0", b"\x07\x09\0\0\0", 1))
    ),
}
