"""Small random deformations that leave an outline the same character, as if another hand had drawn it."""
import numpy as np

TURN = np.deg2rad(15)               # largest turn to either side, radians
SHEAR = 0.2                         # largest horizontal shift per unit of height
STRETCH = 0.25                      # largest |log| of the ratio of width to height
BEND, WAVES = 0.05, 3               # amplitude of a wave, in units of the glyph's larger side; how many waves
PEN = 0.8 / 28                      # most that the pen adds to a stroke, in units of the picture's side
SIDE = (0.65, 0.9)                  # larger side of the warped glyph, in the same unit
SHIFT = 2 / 28                      # largest shift off the picture's centre, in the same unit


def warped(points, drawn, rng, size):
    """`points` (V, 2) of a unit outline, deformed and placed in a `size` x `size` picture; a pen width.

    drawn  (V,) bool: which points lie on the outline; only they count towards its extent
    A linear map, then a smooth displacement by a few plane waves of random direction and phase, then a random
    size and place such that nothing, pen included, leaves the picture.
    """
    points = _bent(points @ _linear(rng).T, rng)
    low, high = points[drawn].min(axis=0), points[drawn].max(axis=0)
    side, pen_width = rng.uniform(*SIDE), rng.uniform(0, PEN)
    shift = rng.uniform(-1, 1, size=2) * min(SHIFT, (1 - side) / 2)
    placed = (points - (low + high) / 2) * ((side - pen_width) / (high - low).max()) + 0.5 + shift
    return placed * size, pen_width * size


def _linear(rng):
    """The matrix (2, 2) that stretches, then shears, then turns."""
    turn, shear, stretch = rng.uniform(-1, 1, size=3) * (TURN, SHEAR, STRETCH)
    c, s = np.cos(turn), np.sin(turn)
    wide, tall = np.exp(stretch / 2), np.exp(-stretch / 2)
    return np.array([[c * wide, (c * shear - s) * tall], [s * wide, (s * shear + c) * tall]])


def _bent(points, rng):
    waves = rng.uniform(-4, 4, size=(2, WAVES))             # wave vectors, radians per unit length
    phases = rng.uniform(0, 2 * np.pi, size=WAVES)
    return points + BEND * np.sin(points @ waves + phases) @ rng.uniform(-1, 1, size=(WAVES, 2))
