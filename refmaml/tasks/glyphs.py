"""Glyphs: few-shot classification of characters from Matplotlib's fonts.

Nothing is downloaded.
"""

import unicodedata
from pathlib import Path

import numpy as np

from refmaml.errors import expect_installed
from refmaml.tasks import outlines, warps
from refmaml.tasks.cache import cached
from refmaml.tasks.checks import expect_choice, expect_count
from refmaml.tasks.few_shot import FewShot
from refmaml.tasks.streams import build_rng

# Whole scripts go to one split; a script is named by the first word of its characters'
# Unicode names ("OLD" is Old Italic). Their order matters: of two that look alike, the
# one of the later script is left out.
SCRIPTS = {
    "train": ("LATIN", "CYRILLIC", "ARABIC", "CANADIAN", "LISU"),
    "validation": ("HEBREW", "NKO", "TIFINAGH", "OLD", "OGHAM"),
    "test": ("GREEK", "COPTIC", "ARMENIAN", "GEORGIAN", "LAO"),
}
# Two characters look alike where their blurred pictures correlate more than this in
# some quarter turn of one.
ALIKE = 0.9
_SIZE = 28  # pixels along the edge of the pictures that are compared


class Glyphs(FewShot):
    """Few-shot tasks of printed characters; `sample` draws them.

    split      "train", "validation" or "test": different scripts, as in SCRIPTS
    size       pixels along an edge
    examples   pictures of each character: random upright faces, each with a random warp
               (see warps.py)
    seed       chooses the faces and the warps
    rotations  see FewShot
    Ink is 1 on 0. No character looks like another of any split, also when it is turned
    by 90, 180 or 270 degrees: see ALIKE. The table is the same for the same arguments,
    Matplotlib version and Unicode database. Building it takes some seconds; it is
    cached in ~/.cache/refmaml. Raises ArgumentError.
    """

    def __init__(self, split="train", *, size=28, examples=20, seed=0, rotations="per_task"):
        expect_choice("split", split, tuple(SCRIPTS))
        expect_count("size", size, least=8)
        expect_count("examples", examples)
        build_rng(seed)  # refuses a bad seed before any work
        table = _table(size, examples, seed)
        rows = table["splits"] == split
        super().__init__(table["images"][rows], table["names"][rows].tolist(), rotations=rotations)


def _table(size, examples, seed):
    """Images, names and splits of all characters; cached."""
    expect_installed("glyphs", "matplotlib", "matplotlib")  # it has the fonts
    import matplotlib

    recipe = [Path(module).read_bytes() for module in (__file__, outlines.__file__, warps.__file__)]
    ingredients = (
        recipe,
        matplotlib.__version__,
        unicodedata.unidata_version,
        size,
        examples,
        seed,
    )

    def fits(table):
        return (
            table.keys() == {"images", "names", "splits"}
            and table["names"].ndim == 1
            and table["names"].dtype.kind == "U"
            and table["splits"].shape == table["names"].shape
            and set(table["splits"].tolist()) == set(SCRIPTS)
            and table["images"].dtype == np.uint8
            and table["images"].shape == (len(table["names"]), examples, size, size)
        )

    return cached("glyphs", ingredients, lambda: _build(size, examples, seed), fits)


def _build(size, examples, seed):
    fonts, canvas = outlines.open_faces(), outlines.Canvas(size)
    splits = distinct_characters(fonts[0])
    images = np.empty((len(splits), examples, size, size), np.uint8)
    for pictures, character in zip(images, splits, strict=True):
        rng = build_rng(seed, ord(character))
        faces = [
            shape for font in fonts if (shape := outlines.outline(font, character)) is not None
        ]
        chosen = rng.integers(len(faces), size=examples)
        for face, (points, codes) in enumerate(faces):
            rows = np.flatnonzero(chosen == face)
            shapes, pens = warps.warped(points, codes != outlines.CLOSE, rng, size, len(rows))
            for row, shape, pen_width in zip(rows, shapes, pens, strict=True):
                pictures[row] = canvas.draw(shape, codes, pen_width)
    return {
        "images": images,
        "names": np.array(list(splits)),
        "splits": np.array(list(splits.values())),
    }


def candidates(font):
    """{script: its letters in `font`, by code point}, for the scripts of SCRIPTS.

    Letters proper: no marks, no modifiers, nothing that Unicode composes of others,
    such as accented letters.
    """
    found = {script: [] for scripts in SCRIPTS.values() for script in scripts}
    for character in map(chr, sorted(font.get_charmap())):
        script = unicodedata.name(character, "").split(" ")[0]
        if (
            script in found
            and unicodedata.category(character) in ("Lu", "Ll", "Lt", "Lo")
            and unicodedata.normalize("NFKD", character) == character
        ):
            found[script].append(character)
    return found


def distinct_characters(font):
    """{character: its split}, in the order of SCRIPTS.

    No character looks like another of any split.
    """
    letters = candidates(font)
    owners = {c: split for split, scripts in SCRIPTS.items() for s in scripts for c in letters[s]}
    shapes = {c: shape for c in owners if (shape := outlines.outline(font, c)) is not None}
    canvas = outlines.Canvas(_SIZE)
    likeness = likenesses(
        np.array(
            [
                canvas.draw(0.7 * _SIZE * points + _SIZE / 2, codes)
                for points, codes in shapes.values()
            ]
        )
    )
    # Unlike every earlier one, kept or not: a chain of small steps could lead back to
    # one left out.
    unlike = ~(np.tril(likeness, -1) > ALIKE).any(axis=1)
    return {c: owners[c] for c, alone in zip(shapes, unlike, strict=True) if alone}


def likenesses(pictures):
    """(C, C): the largest correlation of two blurred pictures over turns of one."""
    blurred = _blurred(pictures.astype(np.float64))
    flat = _standardised(blurred)
    turned = (np.rot90(blurred, turns, axes=(1, 2)) for turns in range(4))
    return np.max([flat @ _standardised(t).T for t in turned], axis=0)


def _blurred(pictures):
    """The weights 1 2 1 twice along each axis: nearly a Gaussian, times 256."""
    for axis in (1, 2, 1, 2):
        pictures = np.roll(pictures, 1, axis) + 2 * pictures + np.roll(pictures, -1, axis)
    return pictures


def _standardised(pictures):
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.sqrt((flat**2).sum(axis=1, keepdims=True))
