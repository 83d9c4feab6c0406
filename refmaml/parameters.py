"""The parameters of a net as one flat vector and as named views of it."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import numpy as np

from refmaml.arrays import described
from refmaml.errors import expect
from refmaml.layers.layer import Array, Arrays, with_inner

TORCH_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


class Parameters:
    """The layout of a flat vector (P,).

    layers        {"0": layer, ...}. Names of parameters and their order are those of
                  torch.nn.Sequential(...).state_dict()
    shapes        {"0.weight": (64, 1, 3, 3), "0.bias": (64,), ...}
    slices        {"0.weight": slice(0, 576), ...}
    layer_of      {"0.weight": 0, ...}, the number of the layer
    within_layer  {"0.weight": "weight", ...}, the layer's own name of the parameter
    size          P
    Raises ArgumentError where two parameters have the same name.
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self.named_layers, self.layers = dict(layers), tuple(layers.values())
        self.shapes: dict[str, tuple] = {}
        self.slices: dict[str, slice] = {}
        self.layer_of: dict[str, int] = {}
        self.within_layer: dict[str, str] = {}
        self.masks: dict[tuple, np.ndarray] = {}  # cached: patterns -> mask
        self.size = 0
        for i, (place, layer) in enumerate(layers.items()):
            for name, shape in layer.shapes().items():
                full = f"{place}.{name}"
                expect(full not in self.shapes, "layers", "parameter names once each", repr(full))
                self.shapes[full], self.layer_of[full] = shape, i
                self.within_layer[full] = name
                self.slices[full] = slice(self.size, self.size + prod(shape))
                self.size += prod(shape)

    def views(self, w: Array) -> list[Arrays]:
        """For each layer a dict of its arrays (T, ...): views of vectors w (T, P)."""
        out: list[Arrays] = [{} for _ in self.layers]
        for full, part in self.slices.items():
            i, name = self.layer_of[full], self.within_layer[full]
            out[i][name] = w[:, part].reshape(len(w), *self.shapes[full])
        return out

    def named(self, theta: Array) -> Arrays:
        """{"0.weight": array, ...} as views of one flat vector theta (P,).

        Raises ArgumentError for another shape or a masked array.
        """
        expect(
            getattr(theta, "shape", None) == (self.size,)
            and not isinstance(theta, np.ma.MaskedArray),
            "theta",
            f"shape ({self.size},)",
            lambda: f"{theta.shape}" if type(theta) is np.ndarray else described(theta),
        )
        return {full: theta[part].reshape(self.shapes[full]) for full, part in self.slices.items()}

    def flat(self, named: Mapping[str, Any], dtype: Any = None) -> np.ndarray:
        """The flat vector (P,) of named arrays, as in the state dict of torch or JAX.

        Batch-norm's running statistics (torch's buffers) are left out, as they are no
        parameters. Raises ArgumentError for any other unknown or missing name, for
        another shape, and for values that are not numbers.
        dtype  that of the arrays unless given
        """
        expect(isinstance(named, Mapping), "named", "a dict of arrays", lambda: described(named))
        given = {
            name: a
            for name, a in named.items()
            if str(name).rpartition(".")[2] not in TORCH_BUFFERS
        }
        self.check_names(given)
        arrays = [as_numbers(name, given[name]) for name in self.shapes]
        for a, (name, shape) in zip(arrays, self.shapes.items(), strict=True):
            expect(a.shape == shape, name, f"shape {shape}", f"{a.shape}")
        flat = np.concatenate([a.ravel() for a in arrays])
        if dtype is None:
            return flat
        kinds = "c" if flat.dtype.kind == "c" else "fc"
        wanted = "a complex dtype" if kinds == "c" else "a float or complex dtype"
        expect(np.dtype(dtype).kind in kinds, "dtype", wanted, f"{dtype}")
        return flat.astype(dtype, copy=False)

    def check_names(self, named: Mapping[str, Any]) -> None:
        """Raise ArgumentError unless the names are those of the parameters."""
        wanted = f"the names {', '.join(self.shapes)}"
        unknown = sorted(map(str, named.keys() - self.shapes.keys()))
        missing = sorted(self.shapes.keys() - named.keys())
        expect(not unknown, "named", wanted, f"an unknown name {unknown[:1]}")
        expect(not missing, "named", wanted, f"nothing for {missing[:1]}")

    def mask(self, patterns: Iterable[str]) -> np.ndarray:
        """(P,) of bools, read-only: the parameters that a tuple of patterns selects.

        A pattern is a parameter's name with wildcards ("0.weight", "*.bias"), a layer's
        class ("BatchNorm2d"; inside another layer too), "head" (the last layer that has
        parameters), "body" (all others) or "context". Raises ArgumentError for a
        pattern that selects nothing.
        """
        known = isinstance(patterns, (tuple, list)) and all(isinstance(p, str) for p in patterns)
        expect(known, "patterns", "a tuple of names or wildcards", lambda: repr(patterns))
        patterns = tuple(patterns)
        if patterns not in self.masks:
            self.masks[patterns] = self.find(patterns)
        return self.masks[patterns]

    def find(self, patterns: tuple[str, ...]) -> np.ndarray:
        """`mask` without its cache."""
        chosen = np.zeros(self.size, bool)
        for pattern in patterns:
            hits = [full for full in self.shapes if self.matches(full, pattern)]
            wanted = f"a name, wildcard or layer class among {', '.join(self.shapes)}"
            expect(hits, "patterns", wanted, repr(pattern))
            for full in hits:
                chosen[self.slices[full]] = True
        chosen.flags.writeable = False
        return chosen

    def matches(self, full: str, pattern: str) -> bool:
        """Whether one pattern of `mask` selects the parameter `full`."""
        layer = self.layer_of[full]
        head = max(self.layer_of.values())
        if pattern in ("head", "body"):
            return (layer == head) == (pattern == "head")
        return (
            fnmatchcase(full, pattern)
            or self.within_layer[full].rpartition(".")[2] == pattern == "context"
            or any(
                pattern == type(inner).__name__ and full.startswith(f"{name}.")
                for name, inner in with_inner(self.named_layers)
            )
        )

    def init(self, rng: np.random.Generator, dtype: Any) -> np.ndarray:
        """A random start (P,): each layer's own initial values, drawn in order."""
        theta = np.empty(self.size, dtype)
        for place, layer in self.named_layers.items():
            for name, value in layer.init(rng).items():
                theta[self.slices[f"{place}.{name}"]] = value.ravel()
        return theta


def as_numbers(name: str, value: Any) -> np.ndarray:
    """A value as a NumPy array of numbers. Raises ArgumentError where it is none."""
    wanted = "a NumPy array of numbers"
    expect(not isinstance(value, np.ma.MaskedArray), name, wanted, lambda: described(value))
    try:
        a = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # e.g. a tensor that requires a gradient
        a = np.empty((), object)
    expect(a.dtype.kind in "fciu", name, wanted, lambda: described(value))
    return a
