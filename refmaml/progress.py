"""Progress bars: drawn on a terminal where tqdm is installed."""

import sys
from importlib.util import find_spec

from refmaml.log import is_terminal


def tqdm_installed():
    """Whether tqdm is installed; a GPU machine may lack it."""
    return find_spec("tqdm") is not None


def bars_enabled():
    """Whether bars are drawn: stderr is a terminal, and tqdm is installed."""
    return is_terminal(sys.stderr) and tqdm_installed()


class NullBar:
    """A bar that draws nothing. It is iterated, updated and closed like tqdm."""

    def __init__(self, iterable):
        self.iterable = iterable

    def __iter__(self):
        return iter(self.iterable)

    def update(self, count=1):
        """Draw nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None


def bar(iterable=None, **options):
    """tqdm(iterable, **options), or a NullBar where bars are not drawn."""
    if not bars_enabled():
        return NullBar(iterable)
    from tqdm import tqdm

    return tqdm(iterable, **options)
