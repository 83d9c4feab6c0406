"""Outlines of characters from Matplotlib's TrueType fonts, and their grey pictures."""

from pathlib import Path

import numpy as np

from refmaml.errors import DataError

# Matplotlib's code for "close this contour". The point of this code has no meaning.
CLOSE = 79
# Upright faces only: an italic may have another letter's shape (Cyrillic te as m); the
# warps slant as well.
FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
)


def open_faces():
    """The fonts of FACES, as `matplotlib.ft2font.FT2Font`.

    The first has all characters of Glyphs.

    Raises DataError where one is missing.
    """
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    try:
        fonts = [FT2Font(str(folder / f"{face}.ttf")) for face in FACES]
    except (
        OSError,
        RuntimeError,
    ) as error:  # a distribution that leaves the fonts out, a damaged file
        raise DataError(
            f"{folder}: expected Matplotlib's fonts {', '.join(FACES)}, got {error}"
        ) from error
    for font in fonts:
        font.set_size(
            256, 72
        )  # 256 pixels to the em: hinting to whole pixels moves nothing visible
    return fonts


def outline(font, character):
    """Points (V, 2) and path codes (V,) of `character` in `font`.

    Centred on 0, the larger side 1, y upwards. None if the font has no such character
    or draws nothing for it.
    """
    if font.get_char_index(ord(character)) == 0:
        return None
    font.load_char(ord(character))
    points, codes = font.get_path()
    drawn = codes != CLOSE
    if not drawn.any():
        return None
    low, high = points[drawn].min(axis=0), points[drawn].max(axis=0)
    return (points - (low + high) / 2) / max((high - low).max(), 1), codes


class Canvas:
    """Draws filled outlines, `size` x `size`, with exact area coverage (Agg)."""

    def __init__(self, size):
        from matplotlib.backends.backend_agg import RendererAgg
        from matplotlib.path import Path as Contours
        from matplotlib.transforms import IdentityTransform

        self._renderer = RendererAgg(size, size, dpi=72)
        self._pen = self._renderer.new_gc()
        self._contours, self._identity = Contours, IdentityTransform()

    def draw(self, points, codes, pen_width=0.0):
        """uint8 (size, size), ink 255 on 0: the filled outline and a pen line along it.

        pen_width: pixels.

        points (V, 2) in pixels from the lower left corner.
        """
        self._renderer.clear()
        self._pen.set_linewidth(pen_width)
        self._renderer.draw_path(
            self._pen, self._contours(points, codes), self._identity, (0.0, 0.0, 0.0)
        )
        return np.asarray(self._renderer.buffer_rgba())[:, :, 3].copy()
