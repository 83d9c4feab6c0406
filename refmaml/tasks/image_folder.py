"""One's own pictures in folders, a folder for each class."""

from pathlib import Path

import numpy as np

from refmaml.errors import expect, expect_installed
from refmaml.tasks import cache, drawings, folders
from refmaml.tasks.checks import expect_choice, expect_count
from refmaml.tasks.few_shot import FewShot
from refmaml.tasks.splits import SPLITS, expect_share, rows_of

_MOST = 4096  # pixels along an edge of an input


class ImageFolder(FewShot):
    """Few-shot tasks of the pictures root/CLASS/*; `sample` draws them.

    root      folder with a folder of pictures for each class; or with folders train,
              val and test (some of them) that hold the classes of the splits. It is
              only read. Classes may have different numbers of pictures. Pictures have
              any format that Pillow reads: PNG, JPEG, BMP, GIF (its first frame), WebP,
              TIFF, ... Names that begin with a dot are skipped, and files of other
              types; links are followed
    split     "train", "validation" or "test"
    train_classes, validation_classes
              without folders train, val and test: the classes are sorted by name,
              shuffled with `split_seed` and cut into the first `train_classes`, the
              next `validation_classes` and the rest. Numbers below 1 are fractions of
              all classes, rounded
    size      pixels along an edge: the largest square in the middle of each picture is
              reduced, or enlarged, to that
    color     True: inputs (T, N, 3, size, size), red, green, blue; False: grey,
              (T, N, 1, size, size). What is transparent is white
    resample  "lanczos", or "nearest"
    invert    True: inputs are 1 - value/255 rather than value/255
    rotations see FewShot
    The pictures are in memory, size * size bytes each (three times as many in colour).
    Up to one GiB of them is cached in ~/.cache/refmaml, and read from there as long as
    the files' names, sizes and times stay.
    Raises ArgumentError, also without Pillow and for an empty split; DataError, in one
    line that names file or folder, where the root has no classes, a class has no
    picture or a further folder, and for files that are empty, damaged or too large.

        data  = rm.ImageFolder("pictures", "train", size=32, color=True)
        batch = data.sample(tasks=4, n_way=3, k_shot=1, k_query=5, seed=0)
        net   = rm.conv4(n_way=3, image=(3, 32, 32))
    """

    def __init__(
        self,
        root,
        split="train",
        *,
        split_seed=1,
        train_classes=0.6,
        validation_classes=0.2,
        size=28,
        color=False,
        resample="lanczos",
        invert=False,
        rotations="none",
    ):
        expect_choice("split", split, SPLITS)
        expect_share("train_classes", train_classes, 1)
        expect_share("validation_classes", validation_classes, 0)
        expect_count("size", size)
        expect(size <= _MOST, "size", f"at most {_MOST} pixels", size)
        expect(isinstance(color, bool | np.bool_), "color", "True or False", repr(color))
        expect_choice("resample", resample, drawings.RESAMPLE)
        expect_installed("ImageFolder", "PIL", "pillow")
        self.set_options(rotations, invert)
        found = folders.find(root).splits
        if "" in found:
            names, all_classes = sorted(found[""]), found[""]
            shares = (split_seed, train_classes, validation_classes)
            rows = rows_of(split, len(names), *shares, "classes")
            classes = {names[row]: all_classes[names[row]] for row in rows}
        else:
            wanted = f"one of {', '.join(found)}, the folders of {root}"
            expect(split in found, "split", wanted, repr(split))
            classes = found[split]
        table = _table(classes, int(size), resample, bool(color))
        self.names, self.images = tuple(classes), table["images"]
        self.counts = table["counts"].astype(np.int64)
        self.firsts = np.cumsum(self.counts) - self.counts

    def __repr__(self):
        few, many = self.counts.min(), self.counts.max()
        each = f"{few}" if few == many else f"{few} to {many}"
        _, channels, height, width = self.images.shape
        return (
            f"ImageFolder({len(self)} classes, {each} examples of {channels} x {height} x "
            f"{width}, rotations={self.rotations!r}, invert={self.invert})"
        )

    def _examples(self, classes, examples):
        return self.images[self.firsts[classes][:, :, None] + examples]


def _table(classes, size, resample, color):
    """Images and counts of the classes, from the cache where they are in it."""
    pictures, channels = sum(map(len, classes.values())), 3 if color else 1

    def build():
        return folders.read(classes, size, resample, color)

    if pictures * channels * size**2 > cache.LIMIT:
        return build()

    def fits(table):
        return (
            table.keys() == {"images", "counts"}
            and table["images"].dtype == np.uint8
            and table["images"].shape == (pictures, channels, size, size)
            and table["counts"].dtype == np.uint32
            and table["counts"].tolist() == [len(files) for files in classes.values()]
        )

    recipe = Path(folders.__file__).read_bytes()
    ingredients = (recipe, folders.fingerprint(classes), size, resample, color)
    return cache.cached("pictures", ingredients, build, fits)
