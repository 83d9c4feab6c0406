"""Pictures in folders, a folder for each class: finding and reading them."""

import io
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refmaml.errors import DataError
from refmaml.log import log
from refmaml.progress import bar
from refmaml.storage.zips import open_regular, require
from refmaml.tasks.drawings import refused

# The folders of a root that is split already, by the name of the split.
SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
# Formats of Pillow that are no pictures, or for which it starts another program.
OTHER_FORMATS = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "WMF"}
_FILES = 1 << 20  # pictures under a root
_BYTES = 1 << 28  # of one file
_PIXELS = 1 << 26  # of one picture


class Found(NamedTuple):
    """The pictures under a root.

    splits  {split: {class: [its pictures, sorted]}}; the one split "" where the root
            has classes, and no folders train, val or test
    skipped the files that are no pictures
    """

    splits: dict
    skipped: list


def formats():
    """The formats that are read, as Pillow names them."""
    from PIL import Image

    Image.init()
    return sorted(set(Image.OPEN) - OTHER_FORMATS)


def endings():
    """The endings of the names of pictures: {".png", ".jpg", ...}."""
    from PIL import Image

    known = set(formats())
    return {e for e, name in Image.registered_extensions().items() if name in known}


def find(root):
    """The pictures under `root`, as Found.

    Names that begin with a dot are skipped, and files that are no pictures by their
    names; the latter are counted on stderr.
    Raises DataError, in one line, for a root without classes, a class without pictures
    or with folders in it, a link that leads nowhere, and too many files.
    """
    root = Path(root)
    try:
        folders, skipped = subfolders(root), []
        places = split_places(root, folders)
        if not places:
            places = {"": root}
        splits = {
            split: {folder.name: pictures(folder, skipped) for folder in class_folders(place)}
            for split, place in places.items()
        }
    except DataError:
        raise
    # No permission, a cycle of links, an invalid file name.
    except (OSError, RuntimeError, ValueError) as error:
        place = getattr(error, "filename", None) or root
        raise refused(place, "folders of pictures", error) from error
    count = sum(len(files) for classes in splits.values() for files in classes.values())
    if count > _FILES:
        raise DataError(f"{root}: expected at most {_FILES} pictures, got {count}")
    if skipped:
        log(f"{root}: {len(skipped)} files are no pictures and were skipped, such as {skipped[0]}")
    return Found(splits, skipped)


def entries(folder):
    """What a folder holds, sorted by name, without names that begin with a dot.

    Raises DataError for a link that leads nowhere.
    """
    found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    for p in found:
        if not p.exists():
            raise DataError(f"{p}: expected a file or a folder, got a link that leads nowhere")
    return found


def subfolders(root):
    """The folders directly under `root`."""
    if not root.is_dir():
        got = "a file" if root.exists() else "nothing there"
        raise DataError(f"{root}: expected a folder with a folder of pictures per class, got {got}")
    return [p for p in entries(root) if p.is_dir()]


def split_places(root, folders):
    """{split: folder} where the root has folders train, val or test of classes.

    Raises DataError where other folders are beside them. A folder of such a name that
    holds pictures is a class.
    """
    names = {name: split for split, known in SPLIT_FOLDERS.items() for name in known}
    places, others = {}, []
    for folder in folders:
        if folder.name in names and subfolders(folder):
            split = names[folder.name]
            if split in places:
                both = f"{places[split].name} and {folder.name}"
                raise DataError(f"{root}: expected one folder for {split}, got {both}")
            places[split] = folder
        else:
            others.append(folder.name)
    if places and others:
        known = ", ".join(sorted(place.name for place in places.values()))
        raise DataError(f"{root}: expected no folder of classes beside {known}, got {others[0]}")
    return {split: places[split] for split in SPLIT_FOLDERS if split in places}


def class_folders(place):
    """The folders of the classes in `place`. Raises DataError where there is none."""
    folders = subfolders(place)
    if not folders:
        raise DataError(
            f"{place}: expected a folder of pictures for each class, as {place}/CLASS/*.png, "
            "got no folder"
        )
    return folders


def pictures(folder, skipped):
    """The pictures of a class, sorted; other files are added to `skipped`.

    Raises DataError for a folder in the folder, and where there is no picture.
    """
    found, known = [], endings()
    for p in entries(folder):
        if p.is_dir():
            raise DataError(
                f"{folder}: expected the pictures of one class without further folders, "
                f"got the folder {p.name}"
            )
        (found if p.suffix.lower() in known else skipped).append(p)
    if not found:
        raise DataError(f"{folder}: expected pictures of a class, such as *.png, got none")
    return found


def fingerprint(classes):
    """Names, sizes and times of pictures {class: [path, ...]}; they identify them.

    Raises DataError.
    """
    known = []
    for name, files in classes.items():
        for path in files:
            try:
                about = path.stat()
            except OSError as error:
                raise refused(path, "a picture", error) from error
            known.append((name, str(path.resolve()), about.st_size, about.st_mtime_ns))
    return known


def read(classes, size, resample, color):
    """The pictures {class: [path, ...]} as arrays, class after class.

    Returns {"images": (pictures, C, size, size) uint8, C = 3 for color, else 1,
    "counts": (classes,)}. Raises DataError naming the file.
    """
    files = [p for of_class in classes.values() for p in of_class]
    images = np.empty((len(files), 3 if color else 1, size, size), np.uint8)
    for place, path in enumerate(bar(files, desc="reading pictures", leave=False)):
        images[place] = decoded(path, size, resample, color)
    counts = np.array([len(of_class) for of_class in classes.values()], np.uint32)
    return {"images": images, "counts": counts}


def decoded(path, size, resample, color):
    """One picture (C, size, size) uint8. Raises DataError."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with open_regular(path) as file:
            length = os.fstat(file.fileno()).st_size
            require(0 < length <= _BYTES, f"{length} bytes" if length else "an empty file")
            data = file.read(length)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is refused, or does no harm
            with Image.open(io.BytesIO(data), formats=formats()) as picture:
                width, height = picture.size  # from the header: no pixel is unpacked yet
                require(width * height <= _PIXELS, f"{width} x {height} pixels")
                upright = on_white(eight_bits(ImageOps.exif_transpose(picture)))
                square = middle(upright.convert("RGB" if color else "L"), size, resample)
    except UnidentifiedImageError as error:
        got = ValueError("bytes that are none")
        raise refused(path, "a picture in a format that Pillow reads", got) from error
    except Exception as error:  # damaged bytes can raise any type
        raise refused(path, "a picture", error) from error
    values = np.asarray(square)
    return values.transpose(2, 0, 1) if color else values[None]


def on_white(picture):
    """The picture on a white background, where parts of it are transparent."""
    from PIL import Image

    if picture.mode not in ("RGBA", "RGBa", "LA", "PA") and "transparency" not in picture.info:
        return picture
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture.convert("RGBA"))
    return white.convert("RGB")


def eight_bits(picture):
    """The picture with 8 bits for each number, where it has 16.

    Raises ValueError for numbers of other types.
    """
    from PIL import Image

    if picture.mode[0] not in "IF":
        return picture
    values = np.asarray(picture)
    require(picture.mode[0] == "I", "real numbers for pixels, not integers of 8 or 16 bits")
    require(values.min() >= 0 and values.max() < 1 << 16, "pixels of more than 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


def middle(picture, size, resample):
    """The largest square in the middle of a picture, reduced to size x size pixels."""
    from PIL import Image

    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling[resample.upper()], box=box)
