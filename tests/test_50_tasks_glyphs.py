"""Glyphs: the number of classes, distinct and complete images, the difficulty."""

import unicodedata

import numpy as np
import pytest

from refmaml.errors import ArgumentError
from refmaml.tasks import Glyphs, drawings, glyphs, outlines, warps
from refmaml.tasks.streams import build_rng


@pytest.fixture(scope="module", autouse=True)
def cache(request):
    """Cached between runs; a table's name has a checksum of the code that drew it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(request.config.cache.mkdir("refmaml")))
        yield


@pytest.fixture(scope="module")
def splits(cache):
    return {split: Glyphs(split) for split in glyphs.SCRIPTS}


def test_there_are_plenty_of_classes_in_every_split(splits):
    sizes = {split: len(data) for split, data in splits.items()}
    assert sizes["train"] >= 400 and sizes["validation"] >= 50 and sizes["test"] >= 80
    assert all(data.images.shape == (len(data), 20, 28, 28) for data in splits.values())


def test_no_script_is_in_two_splits(splits):
    scripts = {
        split: {unicodedata.name(c).split()[0] for c in data.names}
        for split, data in splits.items()
    }
    assert all(scripts[split] <= set(glyphs.SCRIPTS[split]) for split in scripts)
    assert not scripts["train"] & (scripts["validation"] | scripts["test"])
    assert not scripts["validation"] & scripts["test"]


def test_no_two_characters_of_any_split_look_alike(splits):
    from scipy.ndimage import correlate1d

    font, canvas = outlines.open_faces()[0], outlines.Canvas(28)
    shapes = [outlines.outline(font, c) for data in splits.values() for c in data.names]
    pictures = np.array(
        [canvas.draw(0.7 * 28 * points + 14, codes) for points, codes in shapes], float
    )
    for axis in (1, 2):
        pictures = correlate1d(pictures, [1, 4, 6, 4, 1], axis, mode="wrap")
    n = len(pictures)
    nearest = max(
        np.corrcoef(pictures.reshape(n, -1), np.rot90(pictures, turns, (1, 2)).reshape(n, -1))[
            :n, n:
        ][np.triu_indices(n, 1)].max()
        for turns in range(4)
    )
    # The same definition by other code: equal to the rounding of a mean over 784
    # pixels.
    assert nearest <= glyphs.ALIKE + 784 * np.finfo(float).eps


def test_likeness_sees_a_quarter_turn_and_not_the_brightness():
    rng = build_rng(0)
    picture = rng.random((28, 28))
    pictures = np.array([picture, np.rot90(picture), 0.5 * picture, rng.random((28, 28))])
    likeness = glyphs.likenesses(pictures)
    assert np.allclose(likeness[:3, :3], 1, rtol=0, atol=784 * np.finfo(float).eps)
    assert likeness[3, :3].max() < 0.5  # of four chances, at 784 / 6 independent blurred pixels
    assert np.allclose(likeness, likeness.T, rtol=0, atol=784 * np.finfo(float).eps)


def test_the_choice_of_characters_is_the_same_every_time(splits):
    chosen = glyphs.distinct_characters(outlines.open_faces()[0])
    assert {c: split for split, data in splits.items() for c in data.names} == chosen


def test_pictures_depend_on_the_seed_and_on_their_character_alone(splits, tmp_path, monkeypatch):
    few = splits["test"].names[3:9:2]
    monkeypatch.setattr(glyphs, "distinct_characters", lambda font: dict.fromkeys(few, "test"))
    drawn = {}
    for seed in (0, 1):
        monkeypatch.setenv(
            "XDG_CACHE_HOME", str(tmp_path / str(seed))
        )  # not the table of all characters
        drawn[seed] = Glyphs("test", seed=seed)
        assert drawn[seed].names == few
    assert np.array_equal(drawn[0].images, splits["test"].images[3:9:2])
    assert (drawn[0].images != drawn[1].images).any(axis=(2, 3)).all()


def test_every_picture_has_ink_on_an_empty_border(splits):
    for data in splits.values():
        assert (data.images.max(axis=(2, 3)) > 128).all()
        assert (data.images.min(axis=(2, 3)) == 0).all()
        edges = [
            data.images[..., 0, :],
            data.images[..., -1, :],
            data.images[..., 0],
            data.images[..., -1],
        ]
        # A glyph may touch the last pixel of its picture, but it fills no whole side of
        # it.
        assert all((edge == 0).any(axis=-1).all() for edge in edges)


def test_a_warped_outline_stays_inside_its_picture():
    square = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    points, pens = warps.warped(square, np.ones(4, bool), build_rng(0), 28, 500)
    assert points.shape == (500, 4, 2) and pens.shape == (500,)
    # Half the pen's width lies outside the outline; a few roundings of numbers up to 28
    # place it.
    rounding = 10 * 28 * np.finfo(float).eps
    margins = pens[:, None, None] / 2 - rounding
    assert (points - margins).min() >= 0 and (points + margins).max() <= 28


def test_examples_of_a_class_differ(splits):
    images = splits["test"].images
    assert all(
        len({picture.tobytes() for picture in pictures}) == len(pictures) for pictures in images
    )


def test_the_nearest_neighbour_in_pixels_is_neither_lost_nor_done(splits):
    batch = splits["test"].sample(400, n_way=5, k_shot=1, k_query=1)
    flat = [x.reshape(400, 5, -1) for x in (batch.x_support, batch.x_query)]
    distances = ((flat[1][:, :, None] - flat[0][:, None]) ** 2).sum(axis=-1)
    accuracy = (distances.argmin(axis=-1) == batch.y_query).mean()
    # Measured 52 %; Omniglot gives 45 %, chance is 20 %. 2000 answers are within 6 % of
    # their mean.
    assert 0.4 < accuracy < 0.7


def test_a_character_the_font_lacks_has_no_outline():
    font = outlines.open_faces()[0]
    assert outlines.outline(font, "一") is None and outlines.outline(font, " ") is None


@pytest.mark.parametrize(
    "options, argument",
    [
        ({"split": "all"}, "split"),
        ({"size": 7}, "size"),
        ({"examples": 0}, "examples"),
        ({"seed": -1}, "seed"),
        ({"rotations": "tilted"}, "rotations"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: expected .*, got "):
        Glyphs(**options)


def test_importing_the_tasks_loads_no_heavy_package():
    import subprocess
    import sys

    code = (
        "import sys, refmaml.tasks; heavy = "
        "{'matplotlib', 'PIL', 'scipy', 'tqdm', 'urllib.request'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_a_missing_picture_library_is_named_in_one_line(monkeypatch, tmp_path):
    from refmaml import errors

    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(
        ArgumentError,
        match=r"^glyphs: expected matplotlib to be installed \(pip install "
        r"matplotlib\), got nothing of",
    ):
        Glyphs()
    with pytest.raises(
        ArgumentError,
        match=r"^Omniglot: expected PIL to be installed \(pip install pillow\), got "
        r"nothing of that name",
    ):
        drawings.read_drawings([tmp_path], 28, "nearest")
