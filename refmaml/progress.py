"""Progress bars, where somebody watches and tqdm is installed; a GPU machine may do without it."""

import sys
from importlib.util import find_spec


def installed():
    """Whether there is tqdm to draw them."""
    return find_spec("tqdm") is not None


def watched():
    """Whether bars are drawn: on a terminal, with tqdm."""
    return sys.stderr.isatty() and installed()


class Silent:
    """What there is instead of a bar: it can be gone through, updated and left like one."""

    def __init__(self, iterable):
        self.iterable = iterable

    def __iter__(self):
        return iter(self.iterable)

    def update(self, count=1):
        """Nothing is drawn."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None


def bar(iterable=None, **options):
    """tqdm(iterable, **options) where bars are drawn."""
    if not watched():
        return Silent(iterable)
    from tqdm import tqdm

    return tqdm(iterable, **options)
