"""One flat vector of parameters, and the same numbers as named arrays: two views of one memory."""

from fnmatch import fnmatchcase
from math import prod

import numpy as np

from refmaml.errors import expect

TORCH_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class Parameters:
    """The layout of a flat vector (P,): names as in torch.nn.Sequential(...).state_dict(), in that order.

    shapes   {"0.weight": (64, 1, 3, 3), "0.bias": (64,), ...}
    slices   {"0.weight": slice(0, 576), ...}
    size     P
    """

    def __init__(self, layers):
        self.layers = tuple(layers)
        self.shapes, self.slices, self.layer_of = {}, {}, {}
        self.size, self.masks = 0, {}
        for i, layer in enumerate(self.layers):
            for name, shape in layer.shapes().items():
                full = f"{i}.{name}"
                self.shapes[full], self.layer_of[full] = shape, i
                self.slices[full] = slice(self.size, self.size + prod(shape))
                self.size += prod(shape)

    def views(self, w):
        """For flat vectors w (T, P): for each layer a dict of its arrays (T, ...), views of the same memory."""
        out = [{} for _ in self.layers]
        for full, part in self.slices.items():
            i = self.layer_of[full]
            out[i][full.partition(".")[2]] = w[:, part].reshape(len(w), *self.shapes[full])
        return out

    def named(self, theta):
        """{"0.weight": array, ...} as views of one flat vector theta (P,)."""
        expect(theta.shape == (self.size,), "theta", f"shape ({self.size},)", f"{theta.shape}")
        return {full: theta[part].reshape(self.shapes[full]) for full, part in self.slices.items()}

    def flat(self, named, dtype=None):
        """The flat vector of named arrays, e.g. a torch or JAX state dict as NumPy arrays.

        Batch-norm's running statistics (torch's buffers) are left out: they are no parameters. Any other unknown, missing or
        misshapen name raises ArgumentError. dtype: that of the arrays unless given.
        """
        named = {
            name: np.asarray(a)
            for name, a in named.items()
            if name.rpartition(".")[2] not in TORCH_BUFFERS
        }
        unknown, missing = (
            sorted(set(named) - set(self.shapes)),
            sorted(set(self.shapes) - set(named)),
        )
        expect(
            not unknown,
            "named",
            f"the names {', '.join(self.shapes)}",
            f"an unknown name {unknown[:1]}",
        )
        expect(
            not missing,
            "named",
            f"the names {', '.join(self.shapes)}",
            f"nothing for {missing[:1]}",
        )
        for name, a in named.items():
            expect(a.shape == self.shapes[name], name, f"shape {self.shapes[name]}", f"{a.shape}")
        flat = np.concatenate([named[name].ravel() for name in self.shapes])
        return flat if dtype is None else flat.astype(dtype, copy=False)

    def mask(self, patterns):
        """(P,) of bools, read-only: which parameters a tuple of patterns selects.

        A pattern is a parameter's name with wildcards ("0.weight", "*.bias"), a layer's class ("BatchNorm2d"), "head" (the last
        layer that has parameters), "body" (all others) or "context". A pattern that selects nothing raises ArgumentError.
        """
        expect(
            isinstance(patterns, (tuple, list)),
            "patterns",
            "a tuple of names or wildcards",
            lambda: repr(patterns),
        )
        patterns = tuple(patterns)
        if patterns not in self.masks:
            self.masks[patterns] = self.find(patterns)
        return self.masks[patterns]

    def find(self, patterns):
        """`mask`, found out once for each tuple of patterns."""
        chosen = np.zeros(self.size, bool)
        for pattern in patterns:
            hits = [full for full in self.shapes if self.matches(full, pattern)]
            expect(
                hits,
                "patterns",
                f"a name, wildcard or layer class among {', '.join(self.shapes)}",
                repr(pattern),
            )
            for full in hits:
                chosen[self.slices[full]] = True
        chosen.flags.writeable = False
        return chosen

    def matches(self, full, pattern):
        """Whether one pattern of `mask` selects the parameter `full`."""
        layer = self.layer_of[full]
        head = max(self.layer_of.values())
        if pattern in ("head", "body"):
            return (layer == head) == (pattern == "head")
        return (
            pattern == type(self.layers[layer]).__name__
            or fnmatchcase(full, pattern)
            or full.partition(".")[2] == pattern == "context"
        )

    def init(self, rng, dtype):
        """A random start (P,): every layer's own initial values, drawn in order."""
        theta = np.empty(self.size, dtype)
        for i, layer in enumerate(self.layers):
            for name, value in layer.init(rng).items():
                theta[self.slices[f"{i}.{name}"]] = value.ravel()
        return theta
