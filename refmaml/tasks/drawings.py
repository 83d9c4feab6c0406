"""Omniglot's files: one-bit PNGs in two zip archives or in two folders."""

import io
import re
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np

from refmaml.errors import DataError, expect_installed
from refmaml.progress import bar
from refmaml.storage.zips import open_regular, open_zip, require

SETS = ("images_background", "images_evaluation")
SIDE, DRAWINGS = 105, 20  # pixels along an edge; drawings of each character
RESAMPLE = ("lanczos", "nearest")
# set/alphabet/character/drawing.png
_DRAWING = re.compile(r"(([^/]+)/[^/]+/[^/]+)/[^/]+\.png")
# A path through . or .., an absolute path, control characters.
_ODD = re.compile(r"(.*/)?\.\.?(/.*)?|/.*|.*[\x00-\x1f\x7f\\].*", re.DOTALL)
_LIMIT = 1 << 16  # bytes in one PNG; the real ones have some 250
_TOTAL = 1 << 26  # bytes of an archive, unpacked; the real ones have 5 million
_TABLE = 3 << 20  # bytes of its table of contents; the real ones have 2 million
_FILES = 1 << 16  # files in a folder; the real ones have some 20 000


def locate(root):
    """The paths of the two sets under `root`: each an archive, or else a folder.

    Raises DataError if a set has neither.
    """
    root, found = Path(root), []
    try:
        root = root.resolve()
        for name in SETS:
            places = [p for p in (root / f"{name}.zip", root / name) if p.exists()]
            if not places:
                raise DataError(
                    f"{root}: expected Omniglot's {name}.zip or the folder {name}, got neither "
                    "(download=True fetches the archives)"
                )
            found.append(places[0])
    # No permission, a cycle of links, an invalid file name.
    except (OSError, RuntimeError, ValueError) as error:
        raise (
            error if isinstance(error, DataError) else refused(root, "Omniglot's folder", error)
        ) from error
    return found


def fingerprint(place):
    """Names, sizes and times of the drawings at a path of `locate`; they identify them.

    Contents are not read. Raises DataError.
    """
    try:
        return [
            (str(f), (about := f.stat()).st_size, about.st_mtime_ns)
            for f in (in_folder(place) if place.is_dir() else [place])
        ]
    except OSError as error:  # a link that leads nowhere
        raise (
            error
            if isinstance(error, DataError)
            else refused(place, "drawings that can be read", error)
        ) from error


def in_folder(place):
    """The drawings of a folder, sorted. Raises DataError for too many files."""
    files = list(islice(place.glob("*/*/*.png"), _FILES + 1))
    if len(files) > _FILES:
        raise DataError(f"{place}: expected at most {_FILES} drawings, got more")
    return sorted(files)


def refused(place, expected, error):
    """A DataError, in one line, for an error while reading a file."""
    reason = (
        " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    )
    return DataError(f"{place}: expected {expected}, got {reason[:300]}")


def read_drawings(places, size, resample):
    """Images (C, 20, size, size) uint8, ink 0 on 255, and names (C,), sorted.

    resample  "lanczos" filters grey values; "nearest" keeps the pictures black and
    white Nothing is unpacked to disk. Raises DataError, naming the file, if something
    is missing or damaged; ArgumentError without Pillow.
    """
    expect_installed("Omniglot", "PIL", "pillow")
    tables, names = [], []
    for place in places:
        with _opened(place) as (members, read):
            characters = _by_character(place, members)
            table = np.empty((len(characters), DRAWINGS, size, size), np.uint8)
            for row, name in enumerate(
                bar(sorted(characters), desc=f"reading {place.name}", leave=False)
            ):
                for column, member in enumerate(characters[name]):
                    table[row, column] = _decoded(place, member, read, size, resample)
                names.append(name)
            tables.append(table)
    return {"images": np.concatenate(tables), "names": np.array(names)}


@contextmanager
def _opened(place):
    """The names of all files under `place`, and a function from a name to its bytes.

    The names are those of the archive.
    """
    if place.is_dir():
        files = {f.relative_to(place.parent).as_posix(): f for f in in_folder(place)}
        yield files, lambda name: _first_bytes(open_regular(files[name]))
        return
    reading = False
    try:
        with open_zip(place, _TABLE, _TOTAL) as archive:
            members = archive.namelist()
            for name in members:
                require(not _ODD.fullmatch(name), f"a member named {name[:80]!r}")
            reading = True
            yield members, lambda name: _first_bytes(archive.open(name))
    except Exception as error:  # damaged bytes can raise any type in zipfile
        if reading:
            raise
        raise refused(place, "a zip archive of Omniglot", error) from error


def _first_bytes(file):
    with file:
        data = file.read(_LIMIT + 1)
    require(len(data) <= _LIMIT, f"more than {_LIMIT} bytes")
    return data


def _by_character(place, members):
    """{"images_background/Korean/character01": [its 20 drawings, sorted], ..}.

    Other files are skipped.
    """
    characters = {}
    for member in sorted(members):
        match = _DRAWING.fullmatch(member)
        # A renamed copy of the other set would leak its classes: its names differ.
        if match and match[2] == place.stem:
            characters.setdefault(match[1], []).append(member)
    if not characters:
        raise DataError(
            f"{place}: expected drawings {place.stem}/ALPHABET/CHARACTER/*.png, got none"
        )
    for name, drawings in characters.items():
        if len(drawings) != DRAWINGS:
            raise DataError(f"{place}: expected {DRAWINGS} drawings of {name}, got {len(drawings)}")
    return characters


def _decoded(place, member, read, size, resample):
    """One drawing as grey values (size, size). Raises DataError."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(read(member)), formats=["PNG"]) as png:
            # The size is in the header: no pixel is unpacked before this check.
            require(png.size == (SIDE, SIDE), f"{png.size[0]} x {png.size[1]} pixels")
            # Pillow resizes pictures in one-bit mode by nearest neighbour, whatever the
            # filter.
            return np.asarray(
                png.convert("L").resize((size, size), Image.Resampling[resample.upper()])
            )
    except Exception as error:  # damaged bytes can raise any type
        raise refused(place, f"{member} to be a PNG of {SIDE} x {SIDE} pixels", error) from error
