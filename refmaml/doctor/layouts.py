"""Layouts by name: letters for axes, as in "OIHW". Ours are torch's: filters OIHW, matrices OI, images NCHW after the task axis."""

from fnmatch import fnmatchcase

import numpy as np

from refmaml.errors import expect

OURS = {"OIHW", "OI"}
IMAGES = "NCHW"


class Layout:
    """{pattern of parameter names: letters}, e.g. {"*.weight": "HWIO"}; the key "x" is for the images of a batch.

    A pattern acts on arrays with as many axes as it has letters. Raises ArgumentError unless letters are a permutation of ours.
    """

    def __init__(self, given=None):
        expect(
            given is None or isinstance(given, dict),
            "layout",
            'a dict such as {"*.weight": "HWIO"}',
            repr(given),
        )
        self.given = dict(given or {})
        for name, letters in self.given.items():
            known = {IMAGES} if name == "x" else OURS
            fits = isinstance(letters, str) and any(
                sorted(letters) == sorted(ours) for ours in known
            )
            expect(
                fits,
                f"layout[{name!r}]",
                f"a permutation of {' or '.join(sorted(known))}",
                repr(letters),
            )

    def order(self, name, ndim):
        """The permutation that takes our axes of a parameter to theirs, or None."""
        for pattern, letters in self.given.items():
            if pattern != "x" and len(letters) == ndim and fnmatchcase(name, pattern):
                (ours,) = [o for o in OURS if len(o) == ndim]
                return tuple(ours.index(c) for c in letters)
        return None

    def theirs(self, name, a):
        """Our array of a parameter as they want it."""
        order = self.order(name, a.ndim)
        return a if order is None else np.ascontiguousarray(a.transpose(order))

    def ours(self, name, a):
        """Their array of a parameter, as ours; works on any framework's arrays that have transpose or permute."""
        order = self.order(name, len(a.shape))
        if order is None:
            return a
        back = tuple(int(i) for i in np.argsort(order))
        return a.permute(back) if hasattr(a, "permute") else a.transpose(back)

    def images(self, x):
        """A batch's inputs (T, N, C, H, W) as they want them; vectors stay as they are."""
        order = self.image_order(x.ndim)
        return x if order is None else np.ascontiguousarray(x.transpose(0, *(1 + i for i in order)))

    def one_task(self, x):
        """One task's inputs (N, ...) in their layout, as ours (N, C, H, W)."""
        order = self.image_order(len(x.shape) + 1)
        if order is None:
            return x
        back = tuple(int(i) for i in np.argsort(order))
        return x.permute(back) if hasattr(x, "permute") else x.transpose(back)

    def image_order(self, ndim):
        """The permutation that takes our image axes to theirs, or None where x is no image or needs none."""
        letters = self.given.get("x")
        return tuple(IMAGES.index(c) for c in letters) if letters and ndim == 5 else None
