"""Array layouts by name: letters for axes, as in "OIHW".

refmaml's own layouts are torch's: filters OIHW, matrices OI, images NCHW after the task
axis.
"""

from fnmatch import fnmatchcase

import numpy as np

from refmaml.errors import expect

PARAMETERS = {"OIHW", "OI"}
IMAGES = "NCHW"


class Layout:
    """{pattern of parameter names: letters}, e.g. {"*.weight": "HWIO"}.

    The key "x" is for the images of a batch. A pattern acts on arrays with as many axes
    as it has letters. Raises ArgumentError unless letters are a permutation of
    refmaml's."""

    def __init__(self, given=None):
        expect(
            given is None or isinstance(given, dict),
            "layout",
            'a dict such as {"*.weight": "HWIO"}',
            repr(given),
        )
        self.given = dict(given or {})
        for name, letters in self.given.items():
            known = {IMAGES} if name == "x" else PARAMETERS
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
        """The permutation from refmaml's axes of a parameter to the user's, or None."""
        for pattern, letters in self.given.items():
            if pattern != "x" and len(letters) == ndim and fnmatchcase(name, pattern):
                (ours,) = [o for o in PARAMETERS if len(o) == ndim]
                return tuple(ours.index(c) for c in letters)
        return None

    def image_order(self, ndim):
        """The permutation from refmaml's image axes to the user's, or None where x is
        no image or has no layout of its own."""
        letters = self.given.get("x")
        return tuple(IMAGES.index(c) for c in letters) if letters and ndim == 5 else None

    def to_user(self, name, a):
        """A parameter's array in the user's layout."""
        order = self.order(name, a.ndim)
        return a if order is None else np.ascontiguousarray(a.transpose(order))

    def from_user(self, name, a):
        """A parameter's array of any framework, in refmaml's layout."""
        return transposed_back(a, self.order(name, len(a.shape)))

    def images_to_user(self, x):
        """A batch's inputs (T, N, C, H, W) in the user's layout; vectors unchanged."""
        order = self.image_order(x.ndim)
        return x if order is None else np.ascontiguousarray(x.transpose(0, *(1 + i for i in order)))

    def images_from_user(self, x):
        """One task's inputs of any framework, in refmaml's layout (N, C, H, W)."""
        return transposed_back(x, self.image_order(len(x.shape) + 1))


def transposed_back(a, order):
    """a with the permutation `order` undone; in torch transpose is permute."""
    if order is None:
        return a
    back = tuple(int(i) for i in np.argsort(order))
    return a.permute(back) if hasattr(a, "permute") else a.transpose(back)
