"""One's own pictures in folders: small pictures in several formats, and broken ones."""

import os

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import refmaml as rm
from refmaml.cli import main
from refmaml.errors import ArgumentError, DataError
from refmaml.tasks import ImageFolder, folders

FORMATS = ["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "PNG"]
PLAIN = {"rotations": "none", "train_classes": 4, "validation_classes": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "refmaml"


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


# ---- the table -----------------------------------------------------------------------


def test_a_root_of_classes_is_split_by_a_seed_into_disjoint_parts(tmp_path):
    root = write(tmp_path / "root", 10)
    parts = [ImageFolder(root, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [6, 2, 2]  # 0.6 and 0.2 of ten
    assert sorted(name for part in parts for name in part.names) == list("abcdefghij")
    for part in parts:
        for name in part.names:
            c = "abcdefghij".index(name)
            assert values(part, name) == [20 * c + i for i in range(5)]
    assert ImageFolder(root).names == parts[0].names
    assert ImageFolder(root, split_seed=2).names != parts[0].names
    counted = ImageFolder(root, "test", train_classes=7, validation_classes=0)
    assert len(counted) == 3
    with pytest.raises(ArgumentError, match="^split: expected a non-empty split of 10 classes"):
        ImageFolder(root, "validation", validation_classes=0)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_folders_train_val_and_test_are_the_splits(tmp_path, name):
    write(tmp_path / "train", 3), write(tmp_path / name, 2), write(tmp_path / "test", 4)
    sizes = [len(ImageFolder(tmp_path, split)) for split in ("train", "validation", "test")]
    assert sizes == [3, 2, 4]
    assert ImageFolder(tmp_path).names == ("a", "b", "c")  # no shuffle


def test_a_split_without_its_folder_is_refused(tmp_path):
    write(tmp_path / "train", 3), write(tmp_path / "test", 4)
    with pytest.raises(ArgumentError, match="^split: expected one of train, test, the folders"):
        ImageFolder(tmp_path, "validation")


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, 5)
    (tmp_path / "a").rename(tmp_path / "train")
    data = ImageFolder(tmp_path, train_classes=5, validation_classes=0)
    assert sorted(data.names) == ["b", "c", "d", "e", "train"]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("color", [False, True])
def test_pictures_of_any_format_are_read(tmp_path, ending, color):
    root = tmp_path / "root"
    for name, rgb in {"red": (255, 0, 0), "blue": (0, 0, 255)}.items():
        (root / name).mkdir(parents=True)
        flat(rgb).save(root / name / f"1.{ending}")
    data = ImageFolder(root, size=8, color=color, train_classes=2, validation_classes=0)
    assert data.images.shape == (2, 3 if color else 1, 8, 8) and data.images.dtype == np.uint8
    exact = {"red": (255, 0, 0) if color else (76,), "blue": (0, 0, 255) if color else (29,)}
    for name, image in zip(data.names, data.images, strict=True):
        off = image.astype(int) - np.array(exact[name])[:, None, None]
        assert abs(off).max() <= (4 if ending in ("jpg", "jpeg", "webp") else 1)


def one(tmp_path, picture, ending="png", size=4, **options):
    """The only picture of a root, as ImageFolder reads it: (C, size, size)."""
    (tmp_path / "root" / "a").mkdir(parents=True)
    path = tmp_path / "root" / "a" / f"1.{ending}"
    picture.save(path, **options)
    return folders.decoded(path, size, "nearest", color=True)


def test_the_largest_square_in_the_middle_is_taken(tmp_path):
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = 200
    assert (one(tmp_path, Image.fromarray(wide)) == 200).all()


def test_transparent_parts_are_white(tmp_path):
    picture = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    picture.putpixel((0, 0), (10, 20, 30, 255))
    image = one(tmp_path, picture)
    assert image[:, 0, 0].tolist() == [10, 20, 30] and (image[:, 1:] == 255).all()


def test_a_palette_with_a_transparent_colour_is_white_there(tmp_path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([9, 9, 9, 50, 60, 70])
    picture.putpixel((0, 0), 1)
    image = one(tmp_path, picture, transparency=0)
    assert image[:, 0, 0].tolist() == [50, 60, 70] and (image[:, 1:] == 255).all()


def test_sixteen_bits_are_reduced_to_eight(tmp_path):
    deep = (np.arange(16).reshape(4, 4) * 4096).astype(np.uint16)
    assert np.array_equal(one(tmp_path, Image.fromarray(deep))[0], deep >> 8)


def test_photographs_are_turned_upright_as_their_camera_says(tmp_path):
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 255  # the first row is white
    exif = Image.Exif()
    exif[0x0112] = 3  # half a turn
    image = one(tmp_path, Image.fromarray(pixels), exif=exif)
    assert (image[:, -1] == 255).all() and (image[:, :-1] == 0).all()


def test_the_first_picture_of_an_animation_counts(tmp_path):
    rest = [flat("blue", (4, 4))]
    image = one(tmp_path, flat("red", (4, 4)), "gif", save_all=True, append_images=rest)
    assert image[:, 0, 0].tolist() == [255, 0, 0]


# ---- tasks ---------------------------------------------------------------------------


def test_a_task_has_pictures_of_its_classes_and_none_twice(tmp_path):
    data = ImageFolder(write(tmp_path, 5), **PLAIN, size=6)
    batch = data.sample(40, n_way=3, k_shot=2, k_query=3, seed=1, dtype=np.float64)
    assert batch.x_support.shape == (40, 6, 1, 6, 6) and batch.x_query.shape == (40, 9, 1, 6, 6)
    known = {20 * "abcde".index(name) + i for name in data.names for i in range(5)}
    for t in range(40):
        seen = {}
        for x, y in ((batch.x_support, batch.y_support), (batch.x_query, batch.y_query)):
            for image, label in zip(x[t], y[t], strict=True):
                value = round(255 * image[0, 0, 0])
                assert value in known and (image == image[0, 0, 0]).all()
                seen.setdefault(int(label), []).append(value)
        for of_class in seen.values():
            assert len(set(of_class)) == 5 and len({v // 20 for v in of_class}) == 1
        assert len({v[0] // 20 for v in seen.values()}) == 3
    again = data.sample(range(7, 9), 3, 2, 3, seed=1, dtype=np.float64)
    assert again == batch[7:9]


def test_classes_of_different_sizes_use_all_of_their_pictures(tmp_path):
    for c, count in enumerate((3, 8, 5)):
        (tmp_path / "abc"[c]).mkdir()
        for i in range(count):
            flat((60 * c + i,) * 3).save(tmp_path / "abc"[c] / f"{i}.png")
    data = ImageFolder(tmp_path, train_classes=3, validation_classes=0)
    assert "3 to 8 examples" in repr(data) and len(data) == 3
    x = data.sample(200, 3, 1, 2, dtype=np.float64)
    seen = {round(255 * v) for x in (x.x_support, x.x_query) for v in x[:, :, 0, 0, 0].ravel()}
    assert seen == {60 * c + i for c, count in enumerate((3, 8, 5)) for i in range(count)}
    with pytest.raises(
        ArgumentError, match=r"^k_shot \+ k_query: expected at most the 3 examples of the class a,"
    ):
        data.sample(1, 3, 1, 3)


def test_a_table_has_the_tasks_of_the_same_pictures_in_a_plain_few_shot(tmp_path):
    from refmaml.tasks.few_shot import FewShot

    data = ImageFolder(write(tmp_path, 5), **PLAIN)
    table = FewShot(data.images[:, 0].reshape(4, 5, 28, 28), data.names, rotations="none")
    assert data.sample(9, 3, 1, 2, seed=4) == table.sample(9, 3, 1, 2, seed=4)
    for rotations in ("per_task", "as_classes"):
        turned = ImageFolder(tmp_path, **PLAIN | {"rotations": rotations})
        table = FewShot(table.images, data.names, rotations=rotations)
        assert turned.sample(9, 3, 1, 2) == table.sample(9, 3, 1, 2)


def test_rotations_turn_colours_together_and_invert_inverts(tmp_path):
    pixels = np.zeros((6, 6, 3), np.uint8)
    pixels[0] = 255, 100, 0  # the first row is orange
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    whole = {"train_classes": 2, "validation_classes": 0, "size": 6, "color": True}
    data = ImageFolder(tmp_path, rotations="per_task", **whole)
    images = data.sample(30, 2, 1, 1, dtype=np.float64).x_support.reshape(-1, 3, 6, 6)
    plain = pixels.transpose(2, 0, 1) / 255
    turns = [np.rot90(plain, quarters, axes=(1, 2)) for quarters in range(4)]
    found = [[np.array_equal(image, turn) for turn in turns] for image in images]
    assert all(map(any, found)) and all(map(any, zip(*found, strict=True)))
    data = ImageFolder(tmp_path, invert=True, **whole)
    assert np.allclose(data.sample(1, 2, 1, 1, dtype=np.float64).x_support[0, 0], 1 - plain)


# ---- the cache -----------------------------------------------------------------------


def test_the_table_comes_from_the_cache_and_follows_the_files(tmp_path, cache, monkeypatch):
    root = write(tmp_path, 5)
    before = ImageFolder(root, **PLAIN)
    assert len(list(cache.iterdir())) == 1
    with monkeypatch.context() as m:
        m.setattr(folders, "decoded", None)  # nothing is read a second time
        assert np.array_equal(ImageFolder(root, **PLAIN).images, before.images)
    for name in before.names:
        flat("white").save(root / name / "00.png")
    after = ImageFolder(root, **PLAIN)
    assert (after.images[after.firsts] == 255).all()


# ---- what is refused, in one line ----------------------------------------------------


def refused(kind, make, *words):
    with pytest.raises(kind) as caught:
        make()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    return text


def damage(root, name, data):
    (root / "c" / name).write_bytes(data)


BROKEN = {
    "empty": (b"", "an empty file"),
    "no picture": (b"hello", "bytes that are none"),
    "truncated": (None, "truncated"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_named(tmp_path, name):
    root, (data, words) = write(tmp_path, 5), BROKEN[name]
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(root / "c" / "02.png")
    data = (root / "c" / "02.png").read_bytes()[:2000] if data is None else data
    damage(root, "02.png", data)
    every = {"train_classes": 5, "validation_classes": 0}
    refused(DataError, lambda: ImageFolder(root, **every), str(root / "c" / "02.png"), words)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_PIXELS", 100)
    make = lambda: ImageFolder(write(tmp_path, 1), train_classes=1, validation_classes=0)  # noqa: E731
    refused(DataError, make, "00.png", "12 x 12 pixels")


def test_pixels_that_are_real_numbers_are_refused(tmp_path):
    text = refused(
        DataError,
        lambda: one(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "tif"),
        "1.tif",
    )
    assert text.endswith("got real numbers for pixels, not integers of 8 or 16 bits")


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


def test_a_text_beside_the_pixels_does_no_harm(tmp_path):
    info = PngInfo()
    info.add_text("comment", "x" * 1000, zip=True)
    assert one(tmp_path, flat("red"), pnginfo=info)[:, 0, 0].tolist() == [255, 0, 0]


# ---- learning and the command line ---------------------------------------------------


def test_a_net_takes_pictures_in_colour(tmp_path):
    data = ImageFolder(write(tmp_path, 5), **PLAIN, size=16, color=True)
    net = rm.conv4(n_way=3, channels=4, image=(3, 16, 16))
    out = rm.MAML(0.1).meta_gradient(net, net.init(0), data.sample(2, 3, 1, 2))
    assert np.isfinite(out.grad).all() and 0 <= out.accuracy <= 1


def train(root, *more):
    small = ["--n-way", "2", "--k-query", "2", "--tasks", "2", "--steps", "2"]
    small += [] if "mlp" in more else ["--channels", "2"]
    return main(
        ["train", "--data", "folder", "--data-root", str(root), "--kernels", "reference", "--quiet"]
        + [*small, "--eval-tasks", "3", *more]
    )


def test_the_command_line_trains_on_a_folder_and_evaluates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "root", 10)
    assert train(root, "--size", "16", "--color", "--out", "run") == 0
    net = ["--train-classes", "0.5", "--validation-classes", "2", "--net", "mlp", "--hidden", "3"]
    assert train(root, "--out", "other", *net, "--invert", "--rotations", "per_task") == 0
    capsys.readouterr()
    judge = ["evaluate", "run/checkpoint.npz", "--tasks", "3", "--data-root", str(root)]
    assert main(judge) == 0
    assert main([*judge, "--split", "validation"]) == 0
    assert capsys.readouterr().out.count("maml on folder: accuracy") == 2


def test_a_net_trained_on_glyphs_is_judged_on_ones_own_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "root", 10)
    assert train(root, "--out", "run") == 0  # 28 x 28 in grey, as glyphs have
    from refmaml.training import checkpoint

    now, config = checkpoint.load("run/checkpoint.npz")
    glyphs = config | {"data": "glyphs", "train_classes": 1100, "validation_classes": 100}
    checkpoint.save(tmp_path / "glyphs.npz", now, glyphs)
    more = ["--tasks", "3", "--data", "folder", "--data-root", str(root)]
    capsys.readouterr()
    assert main(["evaluate", "glyphs.npz", *more]) == 0
    assert "maml on folder: accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--data", "folder"], "--data-root: expected the folder of the pictures, got nothing"),
        (["--data", "folder", "--data-root", "nowhere"], "nowhere: expected a folder with"),
        (["--data", "glyphs", "--size", "16"], "--size: expected --data folder beside it"),
        (["--data", "glyphs", "--train-classes", "5"], "--train-classes: expected --data omniglot"),
        (["--data", "folder", "--train-classes", "1.5"], "--train-classes: expected an integer"),
        (["--data", "folder", "--split-by", "alphabets"], "--split-by: expected --data omniglot"),
    ],
)
def test_command_lines_that_do_not_fit_are_refused(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--kernels", "reference", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"refmaml: {message}") and err.count("\n") == 1
