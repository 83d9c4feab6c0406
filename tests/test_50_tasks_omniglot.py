"""Omniglot: the real archives if they are installed, and small forged ones."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refmaml.errors import ArgumentError, DataError
from refmaml.tasks import Omniglot, drawings

FAKE = {
    "images_background": [f"Magi/character{i:02d}" for i in range(1, 5)] + ["Korean/character01"],
    "images_evaluation": ["Oriya/character01", "Oriya/character02"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(value, shape=(105, 105)):
    """A one-bit picture, as in the archives: white, with `value` black rows on top."""
    pixels = np.full(shape, 255, np.uint8)
    pixels[:value] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(file, "PNG")
    return file.getvalue()


def members():
    """{path: bytes} of two tiny sets.

    Drawing d of character c of a set has 20 c + d black rows.
    """
    return {
        f"{part}/{name}/{c:04d}_{d + 1:02d}.png": png(20 * (c % 5) + d)
        for part, names in FAKE.items()
        for c, name in enumerate(names)
        for d in range(20)
    }


def write_zips(root, files):
    for part in FAKE:
        with zipfile.ZipFile(root / f"{part}.zip", "w") as archive:
            archive.mkdir(part)
            for path, data in files.items():
                if path.startswith(part):
                    archive.writestr(path, data)
    return root


def write_folders(root, files):
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


@pytest.fixture(params=[write_zips, write_folders], ids=["zips", "folders"])
def write(request):
    return request.param


SMALL = {"train_classes": 4, "validation_classes": 1}


def test_zips_and_unpacked_folders_give_the_same_table(tmp_path):
    (tmp_path / "a").mkdir()
    zips = Omniglot(write_zips(tmp_path / "a", members()), **SMALL)
    folders = Omniglot(write_folders(tmp_path / "b", members()), **SMALL)
    assert np.array_equal(zips.images, folders.images) and zips.names == folders.names


def test_pictures_are_where_their_names_say(tmp_path, write):
    data = Omniglot(
        write(tmp_path, members()), "train", split_by="alphabets", size=105, invert=False
    )
    assert data.names == (
        "images_background/Korean/character01",
        *(f"images_background/Magi/character0{i}" for i in range(1, 5)),
    )
    black_rows = (data.images[:, :, :, 0] == 0).sum(axis=2)
    assert black_rows.tolist() == [[20 * c + d for d in range(20)] for c in (4, 0, 1, 2, 3)]
    assert set(np.unique(data.images)) == {0, 255}


def test_ink_is_one_on_zero_unless_inversion_is_off(tmp_path):
    root = write_zips(tmp_path, members())
    for invert, corner in ((True, 0), (False, 1)):
        data = Omniglot(root, "test", split_by="alphabets", rotations="none", invert=invert)
        last_row = data.sample(3, 2, 1, 1).x_query[
            :, :, 0, -1
        ]  # background: at most 99 rows are black
        assert (last_row == corner).all()


def test_the_table_comes_from_the_cache_and_follows_the_files(tmp_path, write):
    root = write(tmp_path, members())
    before = Omniglot(root, "test", split_by="alphabets")
    assert len(list((tmp_path / "cache" / "refmaml").iterdir())) == 1
    again = Omniglot(root, "test", split_by="alphabets")
    assert np.array_equal(before.images, again.images)
    changed = members()
    changed["images_evaluation/Oriya/character01/0000_01.png"] = png(90)
    write(root, changed)
    assert not np.array_equal(Omniglot(root, "test", split_by="alphabets").images, before.images)


def test_the_splits_by_characters_share_none_and_miss_none(tmp_path):
    root = write_zips(tmp_path, members())
    splits = [Omniglot(root, split, **SMALL).names for split in ("train", "validation", "test")]
    assert [len(names) for names in splits] == [4, 1, 2]
    assert len(set().union(*splits)) == 7
    assert splits[0] == Omniglot(root, **SMALL).names
    assert any(splits[0] != Omniglot(root, split_seed=seed, **SMALL).names for seed in (2, 3))


def test_the_splits_by_alphabets_are_lakes_sets(tmp_path):
    root = write_zips(tmp_path, members())
    for split, part in (("train", "images_background"), ("test", "images_evaluation")):
        names = Omniglot(root, split, split_by="alphabets").names
        assert sorted(names) == sorted(f"{part}/{name}" for name in FAKE[part])


def test_nearest_keeps_pictures_black_and_white_and_lanczos_filters_them(tmp_path):
    root = write_zips(tmp_path, members())
    grey, binary = (Omniglot(root, resample=r, **SMALL).images for r in ("lanczos", "nearest"))
    assert set(np.unique(binary)) == {0, 255} and len(np.unique(grey)) > 10


def replaced(path, data):
    return {**members(), path: data}


def without(path):
    return {p: data for p, data in members().items() if p != path}


ONE = "images_background/Magi/character02/0001_07.png"


@pytest.mark.parametrize(
    "data",
    [
        png(7)[:60],
        b"",
        b"GIF89a",
        png(7, (104, 105)),
        png(7) + bytes(70_000),
        png(7).replace(b"IHDR", b"IHDX"),
        png(7)[:45] + b"\xff" * 20 + png(7)[65:],
    ],
    ids=["truncated", "empty", "foreign", "other size", "huge", "header", "pixels"],
)
def test_a_damaged_drawing_is_named_in_one_line(tmp_path, write, data):
    with pytest.raises(
        DataError, match=f"images_background.*: expected {ONE} to be a PNG of 105"
    ) as error:
        Omniglot(write(tmp_path, replaced(ONE, data)), **SMALL)
    assert "\n" not in str(error.value) and ", got " in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_a_missing_drawing_is_named(tmp_path, write):
    with pytest.raises(
        DataError, match="expected 20 drawings of images_background/Magi/character02, got 19"
    ):
        Omniglot(write(tmp_path, without(ONE)), **SMALL)


def test_a_missing_set_is_named_with_the_way_to_get_it(tmp_path):
    with pytest.raises(
        DataError, match="nowhere: expected Omniglot's images_background.zip .*download=True"
    ):
        Omniglot(tmp_path / "nowhere")
    write_zips(tmp_path, members())
    (tmp_path / "images_evaluation.zip").unlink()
    with pytest.raises(DataError, match="expected Omniglot's images_evaluation.zip or the folder"):
        Omniglot(tmp_path)


def test_an_archive_that_is_truncated_or_no_archive_is_named(tmp_path):
    archive = write_zips(tmp_path, members()) / "images_background.zip"
    for data in (archive.read_bytes()[:5000], b"", b"<html>404: Not Found</html>"):
        archive.write_bytes(data)
        with pytest.raises(
            DataError, match="images_background.zip: expected a zip archive of Omniglot, got"
        ):
            Omniglot(tmp_path)


def test_an_archive_damaged_in_the_middle_names_the_drawing(tmp_path):
    archive = write_zips(tmp_path, members()) / "images_background.zip"
    data = bytearray(archive.read_bytes())
    place = data.index(ONE.encode()) + len(ONE) + 60
    data[place] ^= 255
    archive.write_bytes(data)
    with pytest.raises(DataError, match=f"images_background.zip: expected {ONE} to be a PNG"):
        Omniglot(tmp_path)


def test_an_archive_or_folder_of_something_else_is_refused(tmp_path, write):
    root = write(
        tmp_path, {"images_background/readme.txt": b"x", "images_evaluation/a/b/c.jpg": b"x"}
    )
    with pytest.raises(
        DataError, match="images_background.*: expected drawings images_background/ALPHABET/"
    ):
        Omniglot(root)


def test_one_set_under_both_names_is_refused(tmp_path):
    root = write_zips(tmp_path, members())
    (root / "images_evaluation.zip").write_bytes((root / "images_background.zip").read_bytes())
    with pytest.raises(
        DataError, match="images_evaluation.zip: expected drawings images_evaluation/ALPHA"
    ):
        Omniglot(root)


@pytest.mark.parametrize(
    "options, argument",
    [
        ({"split": "valid"}, "split"),
        ({"split": "validation", "split_by": "alphabets"}, "split"),
        ({"split_by": "pages"}, "split_by"),
        ({"train_classes": 0}, "train_classes"),
        ({"size": 0}, "size"),
        ({"validation_classes": -1}, "validation_classes"),
        ({"size": 106}, "size"),
        ({"resample": "cubic"}, "resample"),
        ({"train_classes": 8}, "split"),
        ({"split": "test", "train_classes": 7}, "split"),
        ({"split_seed": -1}, "seed"),
        ({"rotations": "all"}, "rotations"),
        ({"invert": None}, "invert"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(tmp_path, options, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: expected .*, got "):
        Omniglot(write_zips(tmp_path, members()), **{**SMALL, **options})


def test_download_fetches_only_what_is_missing(tmp_path, monkeypatch):
    source = write_zips(tmp_path, members())
    fetched = []

    def fetch(url, path, md5):
        fetched.append((url, md5))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((source / path.name).read_bytes())

    monkeypatch.setattr("refmaml.tasks.omniglot.fetch", fetch)
    for _ in range(2):
        Omniglot(tmp_path / "new", download=True, **SMALL)
    base = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
    assert fetched == [
        (f"{base}images_background.zip", "68d2efa1b9178cc56df9314c21c6e718"),
        (f"{base}images_evaluation.zip", "6b91aef0f799c5bb55b94e3f2daec811"),
    ]


@pytest.fixture
def real_root(monkeypatch, request):
    root = Path(os.environ.get("REFMAML_DATA") or "data")
    if not all((root / f"{name}.zip").exists() or (root / name).exists() for name in drawings.SETS):
        pytest.skip(f"no Omniglot in {root}; REFMAML_DATA names its folder")
    # Cached between runs: 32 460 pictures take long to read.
    monkeypatch.setenv("XDG_CACHE_HOME", str(request.config.cache.mkdir("refmaml")))
    return root


@pytest.mark.frameworks
def test_the_real_data_have_964_and_659_characters_of_20_drawings(real_root):
    sets = [
        Omniglot(real_root, split, split_by="alphabets", resample="nearest")
        for split in ("train", "test")
    ]
    assert [data.images.shape for data in sets] == [(964, 20, 28, 28), (659, 20, 28, 28)]
    assert [len({name.split("/")[1] for name in data.names}) for data in sets] == [30, 20]
    # A few strokes on white: between 2 and 20 % of the pixels are ink in the mean over
    # a set.
    assert all(0.02 < 1 - data.images.mean() / 255 < 0.2 for data in sets)


@pytest.mark.frameworks
def test_the_real_data_split_into_1100_100_and_423(real_root):
    splits = [
        Omniglot(real_root, split, resample="nearest") for split in ("train", "validation", "test")
    ]
    assert [len(data) for data in splits] == [1100, 100, 423]
    assert len(set().union(*(data.names for data in splits))) == 1623
