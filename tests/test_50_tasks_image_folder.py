"""Tasks of one's own pictures in folders: splits, classes, tasks, the cached table."""

import numpy as np
import pytest
from image_folders import PLAIN, flat, values, write
from PIL import Image

from refmaml.errors import ArgumentError
from refmaml.tasks import ImageFolder, folders

pytestmark = pytest.mark.usefixtures("table_cache")

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


def test_the_table_comes_from_the_cache_and_follows_the_files(tmp_path, table_cache, monkeypatch):
    root = write(tmp_path, 5)
    before = ImageFolder(root, **PLAIN)
    assert len(list(table_cache.iterdir())) == 1
    with monkeypatch.context() as m:
        m.setattr(folders, "decoded", None)  # nothing is read a second time
        assert np.array_equal(ImageFolder(root, **PLAIN).images, before.images)
    for name in before.names:
        flat("white").save(root / name / "00.png")
    after = ImageFolder(root, **PLAIN)
    assert (after.images[after.firsts] == 255).all()
