"""Takes the pictures in docs/pages/pictures/: `python docs/pages/src/pictures.py`.

It needs Chromium and selenium, as `make test-pages` does, and Pillow. Each page is
taken on a projector (1280 x 800) and on a phone (390 x 844), after WAIT seconds.
"""

import io
import sys
import time
from pathlib import Path

from PIL import Image

PAGES = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PAGES.parent.parent / "tests"))

SIZES = {"projector": (1280, 800), "phone": (390, 844)}
COLOURS = 255  # of a picture, which makes it small
WAIT = 2  # seconds; the race needs longer
WAIT_FOR = {"subspace": 20}


def take(browser, path, folder):
    """One picture for each size, the phone's in dark colours."""
    for name, size in SIZES.items():
        browser.size(*size)
        browser.open(path)
        theme = "dark" if name == "phone" else "light"
        browser.run("document.documentElement.dataset.theme = arguments[0]", theme)
        time.sleep(WAIT_FOR.get(path.stem, WAIT))
        picture = Image.open(io.BytesIO(browser.driver.get_screenshot_as_png()))
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(folder / f"{path.stem}-{name}.png", optimize=True)


def main(*names):
    """Take the pictures of the named pages, or of all."""
    from browser import Browser

    browser = Browser()
    try:
        for path in sorted(PAGES.glob("*.html")):
            if not names or path.stem in names:
                take(browser, path, PAGES / "pictures")
    finally:
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
