"""Folders of small pictures for tests, how they are read, and refusals in one line."""

import pytest
from PIL import Image

from refmaml.tasks import folders

PLAIN = {"rotations": "none", "train_classes": 4, "validation_classes": 1}


def flat(color, size=(12, 12)):
    """A picture of one colour."""
    return Image.new("RGB", size, color)


def write(root, classes, count=5, ending="png"):
    """Folders a, b, ... of pictures; picture i of class c has the value 20 c + i."""
    for c in range(classes):
        folder = root / "abcdefghij"[c]
        folder.mkdir(parents=True)
        for i in range(count):
            flat((20 * c + i,) * 3).save(folder / f"{i:02d}.{ending}")
    return root


def values(data, name):
    """The grey values of the pictures of a class."""
    c = data.names.index(name)
    first = data.firsts[c]
    pictures = data.images[first : first + data.counts[c]]
    assert (pictures == pictures[:, :1, :1, :1]).all()
    return pictures[:, 0, 0, 0].tolist()


def one(tmp_path, picture, ending="png", size=4, **options):
    """The only picture of a root, as ImageFolder reads it: (C, size, size)."""
    (tmp_path / "root" / "a").mkdir(parents=True)
    path = tmp_path / "root" / "a" / f"1.{ending}"
    picture.save(path, **options)
    return folders.decoded(path, size, "nearest", color=True)


def refused(kind, make, *words):
    """The message of the error that make() raises: one line with all of the words."""
    with pytest.raises(kind) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    return text
