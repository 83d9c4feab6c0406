"""The folder of golden vectors: uncompressed .npz files and a manifest.json.

    NET.npz            inputs of a problem, and every layer's four passes at them
    NET.METHOD.npz     what a method computes from them
    manifest.json      {"schema", "command", "versions", "machine", "tolerance",
                       "problems", "files"}; every array with its sha256

A folder is written under another name and renamed when it is complete. No existing file
is replaced. The sha256 of an array is over its bytes in the file, little-endian in C
order. The sha256 of a file is over the whole file, whose bytes depend on its arrays
alone.
"""

import hashlib
import io
import json
import re
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from refmaml.errors import DataError, expect
from refmaml.storage.atomic import atomic_folder
from refmaml.storage.npz import read_members
from refmaml.storage.zips import open_regular, read_small, require
from refmaml.training.files import durable_write, unwritable, write_json

SCHEMA = 2  # the version that is written; older ones are read too
NAMES = {f"refmaml-golden-{version}": version for version in range(1, SCHEMA + 1)}
LIMIT = 1 << 26  # bytes; a larger file is not read
MANIFEST, MANIFEST_LIMIT = "manifest.json", 1 << 21
DTYPES = ("<f8", "<f4", "<i8")
_MEMBER, _FILE = (
    re.compile(r"[a-z_A-Z0-9]+(\.[0-9]+)?\.npy"),
    re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)?\.npz"),
)


def sha256(data):
    """The sha256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def new_folder(path):
    """A folder to write into, renamed to `path` if the block ends without exception.

    Raises ArgumentError if `path` holds something, DataError if it cannot be written.
    """
    path = Path(path)
    expect(
        not path.exists() or (path.is_dir() and not any(path.iterdir())),
        "DIR",
        "a folder that does not exist yet, or an empty one",
        f"{path}, which holds something",
    )
    try:
        with atomic_folder(path.absolute()) as part:
            yield part
    except OSError as error:
        raise unwritable(path, "folder", error) from error


def write_arrays(path, arrays):
    """Write an uncompressed zip of .npy files (version 1.0); return its manifest entry.

    The same arrays give the same bytes.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, a in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), npy(a))
    data = stream.getvalue()
    with durable_write(path) as file:
        file.write(data)
    return {"sha256": sha256(data), "arrays": {name: entry(a) for name, a in arrays.items()}}


def npy(a):
    """The bytes of one .npy: little-endian, C order."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, file_order(a), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def file_order(a):
    """The array in C order and little-endian, as in a file.

    (ascontiguousarray would turn a number into an array of one.)
    """
    return np.asarray(a, np.asarray(a).dtype.newbyteorder("<"), order="C")


def entry(a):
    """The manifest's entry of an array."""
    a = file_order(a)
    return {"shape": list(a.shape), "dtype": a.dtype.str, "sha256": sha256(a.tobytes())}


def write_manifest(folder, value, schema=SCHEMA):
    """Write the manifest; it is the last file of a folder."""
    write_json(Path(folder) / MANIFEST, {"schema": f"refmaml-golden-{schema}", **value})


def refuse(path, error):
    """A DataError, in one line, for an error while reading a file."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{path}: expected a file of refmaml golden, got {reason}")


def read_manifest(folder):
    """The manifest of a folder, with the version of its schema as a number.

    Raises DataError unless this version reads its schema and the folder has exactly its
    files.
    """
    path = Path(folder) / MANIFEST
    try:
        value = json.loads(read_small(path, MANIFEST_LIMIT))
        require(
            isinstance(value, dict) and value.get("schema") in NAMES,
            f"schema {value.get('schema') if isinstance(value, dict) else None!r} where "
            f"this version reads {' and '.join(map(repr, NAMES))}",
        )
        require(
            {"tolerance", "problems", "files"} <= set(value) and isinstance(value["files"], dict),
            "no list of files",
        )
        require(
            all(_FILE.fullmatch(name) for name in value["files"]),
            "a file name that is none of refmaml's",
        )
        present = {p.name for p in Path(folder).iterdir()} - {MANIFEST}
        require(
            present == set(value["files"]),
            f"{sorted(present ^ set(value['files']))[0]} in only one of folder and manifest"
            if present ^ set(value["files"])
            else "",
        )
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file of refmaml golden, got no such file") from None
    except Exception as error:  # JSON and its values can raise many types
        raise refuse(path, error) from error
    return value | {"schema": NAMES[value["schema"]]}


def read_arrays(path, stated):
    """{name: array} of one file.

    Raises DataError if a byte differs from the manifest's entry `stated`.
    """
    try:
        arrays = read_members(path, _MEMBER, LIMIT, "fi")
        with open_regular(path) as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest()
        differing = sorted(set(arrays) ^ set(stated["arrays"]))
        require(not differing, f"array {differing[:1]} in only one of file and manifest")
        for name, a in arrays.items():
            found = entry(a)
            require(found["dtype"] in DTYPES, f"array {name} of dtype {found['dtype']}")
            for what, value in stated["arrays"][name].items():
                require(
                    found.get(what) == value,
                    f"array {name} of {what} {found.get(what)} where the manifest says {value}",
                )
        require(
            whole == stated["sha256"], f"sha256 {whole} where the manifest says {stated['sha256']}"
        )
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file of refmaml golden, got no such file") from None
    except Exception as error:  # damaged bytes can raise any type in zipfile and NumPy
        raise refuse(path, error) from error
    return arrays
