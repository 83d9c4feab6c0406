"""Folders and arguments that ImageFolder refuses, and files that it skips."""

import os

import pytest
from image_folders import flat, refused, values, write

from refmaml.errors import ArgumentError, DataError
from refmaml.tasks import ImageFolder

pytestmark = pytest.mark.usefixtures("table_cache")


def make_empty(root):
    (root / "f").mkdir()


def make_nested(root):
    write(root / "c" / "more", 1)


def make_link(root):
    (root / "c" / "link.png").symlink_to(root / "nowhere")


def make_class_link(root):
    (root / "link").symlink_to(root / "nowhere")


def make_cycle(root):
    (root / "c" / "loop.png").symlink_to(root / "c" / "loop.png")


def make_folder_beside_train(root):
    write(root / "train", 2)


def make_pipe(root):
    os.mkfifo(root / "c" / "pipe.png")


def make_two_validations(root):
    for name in "abcde":
        for file in (root / name).iterdir():
            file.unlink()
        (root / name).rmdir()
    write(root / "val", 1), write(root / "validation", 1)


@pytest.mark.parametrize(
    "make, words",
    [
        (make_empty, ["f: expected pictures of a class", "got none"]),
        (make_nested, ["c: expected the pictures of one class", "got the folder more"]),
        (make_link, ["link.png: expected a file or a folder, got a link that leads nowhere"]),
        (make_class_link, ["link: expected a file or a folder, got a link that leads nowhere"]),
        (make_cycle, ["loop.png: expected a file or a folder"]),
        (make_pipe, ["pipe.png: expected a picture, got something that is no regular file"]),
        (make_folder_beside_train, ["expected no folder of classes beside train, got a"]),
        (make_two_validations, ["expected one folder for validation, got val and validation"]),
    ],
)
def test_a_folder_that_is_none_of_classes_is_refused(tmp_path, make, words):
    root = write(tmp_path / "root", 5)
    make(root)
    every = {"train_classes": 5, "validation_classes": 0}
    refused(DataError, lambda: ImageFolder(root, **every), *words)


def test_a_root_without_classes_is_refused(tmp_path):
    refused(DataError, lambda: ImageFolder(tmp_path / "none"), "got nothing there")
    flat("red").save(tmp_path / "1.png")
    refused(DataError, lambda: ImageFolder(tmp_path / "1.png"), "got a file")
    refused(DataError, lambda: ImageFolder(tmp_path), "CLASS/*.png", "got no folder")
    refused(DataError, lambda: ImageFolder("a\0b"), "got nothing there")


def test_hidden_and_other_files_are_skipped_and_links_are_followed(tmp_path, capsys):
    root, elsewhere = write(tmp_path / "root", 4), write(tmp_path / "elsewhere", 1)
    (root / ".hidden").mkdir()
    (root / "a" / ".DS_Store").write_bytes(b"x")
    (root / "a" / "._00.png").write_bytes(b"x")
    (root / "b" / "notes.txt").write_text("x")
    (root / "readme.txt").write_text("x")
    (root / "link").symlink_to(elsewhere / "a")
    (root / "c" / "link.png").symlink_to(elsewhere / "a" / "03.png")
    data = ImageFolder(root, train_classes=5, validation_classes=0)
    assert sorted(data.names) == ["a", "b", "c", "d", "link"]
    assert values(data, "a") == values(data, "link") == [0, 1, 2, 3, 4]
    assert values(data, "c") == [40, 41, 42, 43, 44, 3]
    err = capsys.readouterr().err
    assert "1 files are no pictures" in err and "notes.txt" in err


ARGUMENTS = {
    "split": ("val", "trainy"),
    "train_classes": (0, -1, 1.5, 1.0, float("nan"), float("inf"), True, "1"),
    "validation_classes": (-1, 1.5, None),
    "size": (0, 2.0, 10**6),
    "color": (1, "yes", None),
    "resample": ("cubic", None),
    "invert": (1, None),
    "rotations": ("some", None),
    "split_seed": (-1, 1.5),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_wrong_arguments_are_refused(tmp_path, name):
    write(tmp_path, 5)
    for value in ARGUMENTS[name]:
        with pytest.raises(ArgumentError, match=f"^{name.replace('split_seed', '(split_)?seed')}"):
            ImageFolder(tmp_path, **{name: value})


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    from refmaml import errors

    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    refused(ArgumentError, lambda: ImageFolder(tmp_path), "ImageFolder", "pip install pillow")
