"""Pictures in several formats: how each is decoded, and broken ones."""

import numpy as np
import pytest
from image_folders import flat, one, refused, write
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from refmaml.errors import DataError
from refmaml.tasks import ImageFolder, folders

pytestmark = pytest.mark.usefixtures("table_cache")

FORMATS = ["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "ppm", "PNG"]


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


def test_a_text_beside_the_pixels_does_no_harm(tmp_path):
    info = PngInfo()
    info.add_text("comment", "x" * 1000, zip=True)
    assert one(tmp_path, flat("red"), pnginfo=info)[:, 0, 0].tolist() == [255, 0, 0]


# ---- broken pictures -----------------------------------------------------------------


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
    root, sizes = write(tmp_path, 1), {"train_classes": 1, "validation_classes": 0}
    refused(DataError, lambda: ImageFolder(root, **sizes), "00.png", "12 x 12 pixels")


def test_pixels_that_are_real_numbers_are_refused(tmp_path):
    text = refused(
        DataError,
        lambda: one(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "tif"),
        "1.tif",
    )
    assert text.endswith("got real numbers for pixels, not integers of 8 or 16 bits")
