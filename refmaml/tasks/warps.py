"""Small random deformations of an outline that keep the character readable."""

import numpy as np

TURN = np.deg2rad(15)  # largest turn to either side, radians
SHEAR = 0.2  # largest horizontal shift per unit of height
STRETCH = 0.25  # largest |log| of the ratio of width to height
BEND, WAVES = 0.05, 3  # amplitude in units of the larger side; number of waves
PEN = 0.8 / 28  # most that the pen adds to a stroke, in units of the picture's side
SIDE = (0.65, 0.9)  # larger side of the warped glyph, in the same unit
SHIFT = 2 / 28  # largest shift off the picture's centre, in the same unit


def warped(points, drawn, rng, size, count):
    """Deformations (count, V, 2) of a unit outline (V, 2), and pen widths (count,).

    drawn  (V,) bool: which points are on the outline; only these count for its extent
    size   pixels along an edge of the picture, the unit of the result
    A linear map, then a smooth displacement by a few plane waves of random direction
    and phase, then a random size and place so that everything, with the pen, is inside
    the picture.
    """
    bent = _bent(points @ _linear(rng, count).transpose(0, 2, 1), rng)
    low, high = bent[:, drawn].min(axis=1, keepdims=True), bent[:, drawn].max(axis=1, keepdims=True)
    side, pen_width = (
        rng.uniform(*SIDE, size=(count, 1, 1)),
        rng.uniform(0, PEN, size=(count, 1, 1)),
    )
    scale = (side - pen_width) / (high - low).max(axis=2, keepdims=True)
    shift = rng.uniform(-1, 1, size=(count, 1, 2)) * np.minimum(SHIFT, (1 - side) / 2)
    placed = (bent - (low + high) / 2) * scale + 0.5 + shift
    return placed * size, pen_width[:, 0, 0] * size


def _linear(rng, count):
    """Matrices (count, 2, 2) that stretch, then shear, then turn."""
    turn, shear, stretch = rng.uniform(-1, 1, size=(3, count)) * [[TURN], [SHEAR], [STRETCH]]
    c, s = np.cos(turn), np.sin(turn)
    wide, tall = np.exp(stretch / 2), np.exp(-stretch / 2)
    matrix = np.array([[c * wide, (c * shear - s) * tall], [s * wide, (s * shear + c) * tall]])
    return matrix.transpose(2, 0, 1)


def _bent(points, rng):
    count = len(points)
    waves = rng.uniform(-4, 4, size=(count, 2, WAVES))  # radians per unit length
    phases = rng.uniform(0, 2 * np.pi, size=(count, 1, WAVES))
    amplitudes = rng.uniform(-BEND, BEND, size=(count, WAVES, 2))
    return points + np.sin(points @ waves + phases) @ amplitudes
