"""Omniglot's drawings as they lie on disk: one-bit PNGs in two zip archives, or in two folders."""
import io
import re
import struct
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from refmaml.bars import bar
from refmaml.errors import DataError

SETS = ("images_background", "images_evaluation")
SIDE, DRAWINGS = 105, 20                    # pixels along an edge; drawings of each character
RESAMPLE = ("lanczos", "nearest")
_DRAWING = re.compile(r"(([^/]+)/[^/]+/[^/]+)/[^/]+\.png")     # set/alphabet/character/drawing.png
_LIMIT = 1 << 16                            # bytes in one PNG; the real ones have some 250
# What zipfile, zlib and Pillow raise on damaged bytes.
_DAMAGED = (OSError, EOFError, ValueError, SyntaxError, RuntimeError, struct.error, zipfile.BadZipFile,
            zlib.error)


def locate(root):
    """For each of the two sets, its archive under `root`, or else its folder: two pathlib.Paths.

    Raises DataError where a set has neither.
    """
    root = Path(root).resolve()
    found = []
    for name in SETS:
        places = [p for p in (root / f"{name}.zip", root / name) if p.exists()]
        if not places:
            raise DataError(f"{root}: expected Omniglot's {name}.zip or the folder {name}, got neither "
                            "(download=True fetches the archives)")
        found.append(places[0])
    return found


def fingerprint(place):
    """What changes when the drawings at a path of `locate` change: names, sizes and times, no contents."""
    files = sorted(place.glob("*/*/*.png")) if place.is_dir() else [place]
    return [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]


def read_drawings(places, size, resample):
    """All characters of both sets: images (C, 20, size, size) uint8, ink 0 on 255, and names (C,), sorted.

    resample  "lanczos" filters the picture as grey values; "nearest" keeps it black and white
    Nothing is unpacked to disk. Raises DataError, naming the file, where something is missing or damaged.
    """
    images, names = [], []
    for place in places:
        with _opened(place) as (members, read):
            characters = _by_character(place, members)
            for name in bar(sorted(characters), desc=f"reading {place.name}", leave=False):
                images.append([_decoded(place, member, read, size, resample) for member in characters[name]])
                names.append(name)
    return {"images": np.array(images, np.uint8), "names": np.array(names)}


@contextmanager
def _opened(place):
    """Names of all files under `place`, as in the archive, and a function from one to its bytes."""
    if place.is_dir():
        files = {f.relative_to(place.parent).as_posix(): f for f in place.glob("*/*/*.png")}
        yield files, lambda name: _first_bytes(files[name].open("rb"))
        return
    try:
        archive = zipfile.ZipFile(place)
    except _DAMAGED as error:
        raise DataError(f"{place}: expected a zip archive of Omniglot, got {error}") from error
    with archive:
        yield archive.namelist(), lambda name: _first_bytes(archive.open(name))


def _first_bytes(file):
    with file:
        data = file.read(_LIMIT + 1)
    if len(data) > _LIMIT:
        raise ValueError(f"more than {_LIMIT} bytes")
    return data


def _by_character(place, members):
    """{"images_background/Korean/character01": [its 20 drawings, sorted], ..}; other files are skipped."""
    characters = {}
    for member in sorted(members):
        match = _DRAWING.fullmatch(member)
        if match and match[2] == place.stem:        # a renamed copy of the other set would leak its classes
            characters.setdefault(match[1], []).append(member)
    if not characters:
        raise DataError(f"{place}: expected drawings {place.stem}/ALPHABET/CHARACTER/*.png, got none")
    for name, drawings in characters.items():
        if len(drawings) != DRAWINGS:
            raise DataError(f"{place}: expected {DRAWINGS} drawings of {name}, got {len(drawings)}")
    return characters


def _decoded(place, member, read, size, resample):
    from PIL import Image
    try:
        with Image.open(io.BytesIO(read(member)), formats=["PNG"]) as png:
            if png.size != (SIDE, SIDE):                # known from the header, before a pixel is unpacked
                raise ValueError(f"{png.size[0]} x {png.size[1]} pixels")
            # A picture in one-bit mode would be resized by nearest neighbour, whatever filter is named.
            return np.asarray(png.convert("L").resize((size, size), Image.Resampling[resample.upper()]))
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: expected {member} to be a PNG of {SIDE} x {SIDE} pixels, got "
                        f"{' '.join(str(error).split())}") from error
