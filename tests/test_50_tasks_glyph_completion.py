"""Glyph completion: pixels of a picture as support and query sets."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.tasks import Glyphs


@pytest.fixture(scope="module", autouse=True)
def cache(request):
    """Cached between runs; a table's name has a checksum of the code that drew it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(request.config.cache.mkdir("refmaml")))
        yield


@pytest.fixture(scope="module")
def test_split(cache):
    return rm.GlyphCompletion("test")


def picture_of(batch, t, size=28):
    """The pixels of task t (size, size); NaN where neither set has one."""
    picture = np.full((size, size), np.nan)
    for x, y in batch.sets:
        rows, columns = np.round((x[t, :, :2] + 1) * size / 2 - 0.5).astype(int).T
        assert np.isnan(picture[rows, columns]).all()  # no pixel twice
        picture[rows, columns] = y[t, :, 0]
    return picture


def test_all_pixels_of_a_task_are_one_picture_of_the_split(test_split):
    batch = test_split.sample(3, k_shot=84, k_query=700, seed=1)
    pictures = Glyphs("test").images.reshape(-1, 28, 28)
    for t in range(3):
        picture = np.round(255 * picture_of(batch, t)).astype(int)
        assert (pictures == picture).all(axis=(1, 2)).any()


def test_places_are_the_middles_of_pixels_and_ink_is_in_range(test_split):
    batch = test_split.sample(2, k_shot=392, k_query=392)
    x = np.concatenate([batch.x_support, batch.x_query], axis=1)
    assert x.min() == pytest.approx(-1 + 1 / 28) and x.max() == pytest.approx(1 - 1 / 28)
    assert batch.y_support.min() >= 0 and batch.y_query.max() <= 1
    assert batch.x_support.dtype == np.float32 and batch.y_query.shape == (2, 392, 1)


def test_a_task_depends_on_seed_step_and_number_alone(test_split):
    whole, part = (
        test_split.sample(6, seed=3, step=2),
        test_split.sample(range(4, 6), seed=3, step=2),
    )
    assert whole[4:6] == part
    assert test_split.sample(6, seed=3, step=3) != whole
    assert test_split.sample(6, seed=4, step=2) != whole


def test_the_number_of_support_pixels_is_drawn_for_each_step(cache):
    some = rm.GlyphCompletion("validation", fewest=5)
    sizes = [some.sample(2, k_shot=9, k_query=4, step=s).x_support.shape[1] for s in range(60)]
    assert set(sizes) == {5, 6, 7, 8, 9}
    parts = [some.sample(range(t, t + 1), k_shot=9, k_query=4, step=7) for t in range(3)]
    assert len({part.x_support.shape for part in parts}) == 1


@pytest.mark.parametrize(
    "given, line",
    [
        ({"k_shot": 0}, "^k_shot: expected an integer >= 1, got 0"),
        ({"k_shot": 400, "k_query": 400}, "^k_shot . k_query: expected at most the 784 pixels"),
        ({"k_query": 1.5}, "^k_query: expected an integer >= 1, got 1.5"),
        ({"dtype": int}, "^dtype: expected a real floating-point type"),
    ],
)
def test_a_bad_argument_is_refused(test_split, given, line):
    with pytest.raises(rm.ArgumentError, match=line):
        test_split.sample(1, **given)


def test_waves_of_the_places_stand_beside_them(test_split):
    waves = rm.GlyphCompletion("test", frequencies=3).sample(2, k_shot=5, k_query=7)
    plain = test_split.sample(2, k_shot=5, k_query=7)
    assert waves.x_query.shape == (2, 7, 14) and np.array_equal(waves.y_query, plain.y_query)
    x, places = waves.x_query.astype(float), plain.x_query.astype(float)
    assert np.array_equal(x[..., :2], places)
    for j in range(3):
        block = x[..., 2 + 4 * j : 6 + 4 * j]
        angle = 2**j * np.pi * places
        assert np.allclose(block, np.concatenate([np.sin(angle), np.cos(angle)], axis=2), atol=1e-5)


def test_a_bad_fewest_is_refused(cache):
    with pytest.raises(rm.ArgumentError, match="^fewest: expected an integer >= 1, got 0"):
        rm.GlyphCompletion("test", fewest=0)
    with pytest.raises(rm.ArgumentError, match="^k_shot: expected an integer >= 5, got 4"):
        rm.GlyphCompletion("test", fewest=5).sample(1, k_shot=4)
