"""Glyph completion: a picture is a function from places to ink, a task is a picture."""

import numpy as np

from refmaml.errors import expect
from refmaml.tasks.checks import expect_count, expect_real_dtype
from refmaml.tasks.glyphs import Glyphs
from refmaml.tasks.shots import split as split_shots
from refmaml.tasks.streams import task_range, task_rng, task_rngs

# The stream of a step that no task has: it draws the number of support pixels.
STEP_STREAM = 2**64 - 1


class GlyphCompletion:
    """A task is one picture of `Glyphs`: regression from a pixel's place to its ink.

    x = (row, column), both in (-1, 1), at the middle of a pixel; y is the ink there, in
    [0, 1]. Some pixels are the support set, others the query set.

    With `frequencies` f, x also has sin(2^j pi u) and cos(2^j pi u) for j < f and both
    coordinates u: 2 + 4 f numbers. A net of coordinates alone learns the fine strokes
    last (Tancik et al. 2020).

    split, size, examples, seed  as in Glyphs; pictures are not turned
    fewest  None: each step has k_shot support pixels. An integer n: their number is
            drawn for each step from n .. k_shot, all tasks of a step alike
    Raises ArgumentError.
    Source: Garnelo et al. 2018, section 4.2, which completes pictures of digits.
    """

    def __init__(self, split="train", *, size=28, examples=20, seed=0, fewest=None, frequencies=0):
        if fewest is not None:
            expect_count("fewest", fewest)
        expect_count("frequencies", frequencies, least=0)
        glyphs = Glyphs(split, size=size, examples=examples, seed=seed, rotations="none")
        self.images, self.names, self.fewest = glyphs.images, glyphs.names, fewest
        places = (2 * np.arange(size) + 1) / size - 1
        rows, columns = np.meshgrid(places, places, indexing="ij")
        self.places = np.stack([rows.ravel(), columns.ravel()], axis=1)  # (size^2, 2)
        self.inputs = with_waves(self.places, frequencies)

    def __len__(self):
        """The number of pictures."""
        return self.images.shape[0] * self.images.shape[1]

    def sample(self, tasks, k_shot=100, k_query=200, *, seed=0, step=0, dtype=np.float32):
        """A Batch: x (T, k, 2 + 4 f), y (T, k, 1); k is k_shot or k_query.

        tasks       how many, or which ones as a range
        k_shot      support pixels (the most of them, with `fewest`)
        k_query     query pixels, none of them in the support
        seed, step  integers: the same two give the same task i, whatever `tasks` is
        Raises ArgumentError, also where a picture has too few pixels.
        """
        pictures, order, k_shot = self.draw(tasks, k_shot, k_query, seed, step)
        expect_real_dtype(dtype)
        chosen = order[:, : k_shot + k_query]
        y = np.take_along_axis(pictures, chosen, axis=1)[..., None] / 255
        return split_shots(self.inputs[chosen], y, k_shot, dtype)

    def draw(self, tasks, k_shot, k_query, seed, step):
        """(pictures (T, pixels) uint8, an order of pixels for each, support pixels)."""
        expect_count("k_shot", k_shot, least=self.fewest or 1)
        expect_count("k_query", k_query)
        pixels = len(self.places)
        wanted = f"at most the {pixels} pixels of a picture"
        expect(k_shot + k_query <= pixels, "k_shot + k_query", wanted, k_shot + k_query)
        tasks = task_range(tasks)
        classes, examples = self.images.shape[:2]
        pictures = np.empty((len(tasks), pixels), np.uint8)
        order = np.empty((len(tasks), pixels), np.int64)
        for t, rng in enumerate(task_rngs(seed, step, tasks)):
            image = self.images[rng.integers(classes), rng.integers(examples)]
            pictures[t], order[t] = image.ravel(), rng.permutation(pixels)
        if self.fewest is not None:
            k_shot = int(task_rng(seed, step, STEP_STREAM).integers(self.fewest, k_shot + 1))
        return pictures, order, k_shot


def with_waves(places, frequencies):
    """Places (N, 2), then sin(2^j pi u), cos(2^j pi u): (N, 2 + 4 frequencies)."""
    angles = [2**j * np.pi * places for j in range(frequencies)]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.concatenate([places, *waves], axis=1)
