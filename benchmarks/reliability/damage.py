"""Random damage to good files: bytes, zip members, array headers, manifests."""

import io
import json
import zipfile

import numpy as np

from refmaml.golden import files as golden
from refmaml.storage import npz

# Text in headers, manifests or names that a reader may not expect.
WORDS = [
    b"(",
    b"[" * 300,
    b"'" * 3,
    b"\\x00",
    b"-1",
    b"(-2, -4)",
    b"1099511627776",
    b"(0, 9223372036854775807)",
    b"True",
    b"'|O'",
    b"'>f8'",
    b"'<U0'",
    b"'V8'",
    b"'<M8[s]'",
    b"[('a', '<f8')]",
    b"{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3)}",
    b"0x7f",
    b"1e999",
    b"NaN",
    b"{}",
    b"None",
    b"9" * 5000,
    b"../x",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"PK\x05\x06",
    b"PK\x03\x04",
    b"PK\x01\x02",
    b"\x93NUMPY\x02\x00",
    b"\x93NUMPY\x01\x00",
    b"IHDR",
    b"zTXt",
]


def damaged_bytes(data, choose):
    """A few bytes flipped, cut, moved or overwritten, or a word inserted."""
    data = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 5))):
        at, n = choose.randrange(len(data) + 1), choose.randint(1, 16)
        how = choose.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << choose.randrange(8)
        elif how == 1:
            data[at : at + n] = choose.randbytes(n)
        elif how == 2:
            del data[at : at + choose.choice((n, len(data)))]
        elif how == 3:
            data[at:at] = data[:n]
        elif how == 4:
            data[at : at + n] = choose.choice((b"\xff", b"\0", b"\x7f")) * n
        else:
            word = choose.choice(WORDS)
            data[at : at + choose.choice((0, len(word)))] = word
    return bytes(data)


def damaged_header(data, choose):
    """A .npy file with a damaged header of the right length."""
    if data[:6] != b"\x93NUMPY" or len(data) < 10:
        return damaged_bytes(data, choose)
    end = 10 + int.from_bytes(data[8:10], "little")
    text = damaged_bytes(data[10:end].rstrip(), choose)
    for old in (b"(6,)", b"'<f8'", b"False"):
        if choose.random() < 0.3:
            text = text.replace(old, choose.choice(WORDS))
    text = text[:60_000] + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + data[end:]


def resealed(members, choose):
    """The members of a checkpoint with a changed manifest and a valid sha256."""
    arrays = {
        n.removesuffix(".npy"): np.lib.format.read_array(io.BytesIO(data)) for n, data in members
    }
    manifest = json.loads(arrays.pop("manifest").tobytes())
    key = choose.choice(list(manifest))
    manifest[key] = choose.choice(
        [None, -1, 1e400, "", [], {}, [[]], "x" * 100, 2, 3, True, {"a": {"b": []}}, ["step"] * 5]
    )
    if choose.random() < 0.3:
        arrays[choose.choice(list(arrays))] = np.zeros(
            choose.choice([(), (2,), (0, 5), (2, 5)]), choose.choice(["<f4", "<f8", "<u1"])
        )
    manifest["sha256"] = npz.digest({k: v for k, v in manifest.items() if k != "sha256"}, arrays)
    arrays["manifest"] = np.frombuffer(json.dumps(manifest).encode(), np.uint8)
    return [(f"{n}.npy", golden.npy(a)) for n, a in arrays.items()]


def damaged_member(members, choose):
    """The members of a zip, one of them damaged."""
    damage, at = choose.randrange(6), choose.randrange(len(members))
    name, content = members[at]
    if damage == 0:
        members[at] = name, damaged_bytes(content, choose)
    elif damage in (1, 2):
        members[at] = name, damaged_header(content, choose)
    elif damage == 3:
        text = damaged_bytes(name.encode(), choose).decode("latin-1")[:1000]
        members[at] = text.replace("\0", "?") or "x", content
    elif damage == 4:
        names = [name, f"{name}/", f"../{name}", f"/{name}"]
        members.insert(at, (choose.choice(names), bytes(choose.choice((0, 10, 1 << 20)))))
    elif "manifest.npy" in dict(members):
        members = resealed(members, choose)
    return members


def damaged(data, choose):
    """The bytes of a file after one kind of damage.

    After damage to members, the zip is packed again with valid checksums, so that a
    reader gets as far as the damage.
    """
    if choose.random() < 0.35:
        return damaged_bytes(data, choose)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    members = damaged_member(members, choose)
    stream = io.BytesIO()
    packing = choose.choice(
        [zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    )
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()
