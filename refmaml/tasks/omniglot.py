"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings of each."""

from pathlib import Path

import numpy as np

from refmaml.errors import expect
from refmaml.tasks import drawings
from refmaml.tasks.cache import cached
from refmaml.tasks.checks import expect_choice, expect_count
from refmaml.tasks.download import download as fetch
from refmaml.tasks.few_shot import FewShot
from refmaml.tasks.splits import SPLITS, rows_of

_SPLITS = {"characters": SPLITS, "alphabets": ("train", "test")}
_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
_MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}


class Omniglot(FewShot):
    """Few-shot tasks of Omniglot characters; `sample` draws them.

    root      folder with images_background.zip and images_evaluation.zip, or with the
              folders they unpack to; it is only read
    split     "train", "validation" or "test"
    split_by  "characters": all 1623 are sorted by name, shuffled with `split_seed` and
              cut into the first `train_classes`, the next `validation_classes` and the
              rest. This is MAML's rule, 1100 / 100 / 423, but not its classes: those
              depended on the order of files on its authors' disk.
              "alphabets": Lake's rule, the background set (964 characters of 30
              alphabets) to train, the evaluation set (659 of 20) to test, no validation
    size      pixels along an edge, reduced from 105
    resample  "lanczos", or "nearest" as in MAML's published code: that code names
              Lanczos, but Pillow takes the nearest pixel for one-bit pictures
    invert    True: ink is 1 on 0 (MAML); False: ink is 0 on 1, as stored (Reptile,
              iMAML)
    rotations see FewShot
    download  download missing archives into `root` first
    The first use reads 32 460 pictures, for some ten seconds; a table of them is cached
    in ~/.cache/refmaml. Source: Lake, Salakhutdinov, Tenenbaum, Science 350 (2015)
    1332; splits of Finn, Abbeel, Levine 2017. Raises ArgumentError, and DataError if a
    file is missing, damaged or not Omniglot's.
    """

    def __init__(
        self,
        root,
        split="train",
        *,
        split_by="characters",
        split_seed=1,
        train_classes=1100,
        validation_classes=100,
        size=28,
        resample="lanczos",
        invert=True,
        rotations="per_task",
        download=False,
    ):
        expect_choice("split_by", split_by, tuple(_SPLITS))
        expect_choice("split", split, _SPLITS[split_by])
        expect_count("train_classes", train_classes)
        expect_count("validation_classes", validation_classes, least=0)
        expect_count("size", size)
        expect(size <= drawings.SIDE, "size", f"at most {drawings.SIDE} pixels", size)
        expect_choice("resample", resample, drawings.RESAMPLE)
        if download:
            _download_missing(Path(root))
        table = _table(drawings.locate(root), size, resample)
        if split_by == "alphabets":
            rows = _rows_by_alphabet(table["names"], split)
        else:
            sizes = train_classes, validation_classes
            rows = rows_of(split, len(table["names"]), split_seed, *sizes, "characters")
        super().__init__(
            table["images"][rows], table["names"][rows].tolist(), rotations=rotations, invert=invert
        )


def _table(places, size, resample):
    """Images and names of all characters, sorted by name; cached."""
    recipe = Path(drawings.__file__).read_bytes()
    ingredients = (recipe, [drawings.fingerprint(place) for place in places], size, resample)

    def fits(table):
        return (
            table.keys() == {"images", "names"}
            and table["names"].ndim == 1
            and table["names"].dtype.kind == "U"
            and table["images"].dtype == np.uint8
            and table["images"].shape == (len(table["names"]), drawings.DRAWINGS, size, size)
        )

    return cached(
        "omniglot", ingredients, lambda: drawings.read_drawings(places, size, resample), fits
    )


def _rows_by_alphabet(names, split):
    folder = {"train": "images_background", "test": "images_evaluation"}[split]
    return np.flatnonzero(np.char.startswith(names, folder + "/"))


def _download_missing(root):
    for name in drawings.SETS:
        archive = root / f"{name}.zip"
        if not archive.exists() and not (root / name).exists():
            fetch(_URL + archive.name, archive, _MD5[name])
