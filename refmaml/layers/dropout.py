"""Dropout whose mask is a pure function of its key."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

from refmaml.arguments import check_integer, is_number, set_fields
from refmaml.errors import expect
from refmaml.layers.layer import Layer, with_inner
from refmaml.layers.random_bits import SIGNIFICANT, key_of, uniform_words


@dataclass(frozen=True)
class Dropout(Layer):
    """y = m x, with m = 0 with probability p and 1 / (1 - p) otherwise, for each entry.

    The layer is linear, so dx = m dy, ry = m rx and rdx = m rdy, all with the mask of
    the forward pass.

    The mask is a pure function of (seed, shape of one task's x, entry): nothing is
    drawn in sequence, and a pass that is computed again has the same mask. So a
    meta-gradient is the exact derivative of its objective with the masks held fixed.
    What this means:

    - All steps of the inner loop have the same mask, where PyTorch draws a new one in
      each pass. Support and query set share it if they have equally many examples.
    - All tasks share it. A layer sees the tasks of a chunk without their numbers, and a
      task's result must not depend on the tasks that it is computed with.
    - Each example has a mask of its own.
    - Change the seed at every meta-step: `net.with_dropout_seed(step)`, as training
      does. A seed that stays is one thinned net. Every Dropout of a net needs a seed of
      its own, and `with_dropout_seed` gives it one.
    - `net.evaluation()` is the net without dropout, as is p = 0.

    p     the probability of 0, in [0, 1]; for 1 every entry is 0, as in PyTorch
    seed  an integer in [0, 2^64)
    Raises ArgumentError for another p or seed.
    Source: Srivastava et al. 2014, section 4, scaled as in PyTorch.
    """

    p: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        right = is_number(self.p) and 0 <= self.p <= 1
        expect(right, "p", "a number in [0, 1]", lambda: repr(self.p))
        seed = check_integer("seed", self.seed, 0)
        expect(seed < 2**64, "seed", "an integer in [0, 2^64)", lambda: repr(seed))
        set_fields(self, p=float(self.p), seed=seed)

    @classmethod
    def examples(cls):
        """[(layer, shape of one input), ...]"""
        return [(cls(), (3, 4, 2)), (cls(0.2, seed=1), (3, 4, 2)), (cls(), (5,)), (cls(0), (5,))]

    def mask(self, xp: Any, shape: tuple, dtype: Any) -> Any:
        """m for one task's x of `shape` (N, ...): 0, and 1 / (1 - p) in [p, 1)."""
        words = uniform_words(xp, key_of(self.seed, *shape), prod(shape)).reshape(shape)
        kept = words >= ceil(self.p * 2**SIGNIFICANT)
        return kept.astype(dtype) * (1 / (1 - self.p) if self.p < 1 else 0.0)

    def forward(self, k, w, x):
        if self.p == 0:
            return x.copy(), None
        m = self.mask(k.xp, x.shape[1:], x.real.dtype)
        return m * x, m

    def masked(self, m, a):
        """m a, and a copy of a where there is no mask."""
        return a.copy() if m is None else m * a

    def backward(self, k, dw, w, m, dy, need_dx=True):
        return self.masked(m, dy)

    def r_forward(self, k, w, rw, m, rx):
        return self.masked(m, rx), None

    def r_backward(self, k, rdw, w, rw, m, rsaved, dy, rdy, need_dx=True):
        return self.masked(m, rdy)

    def evaluation(self) -> "Dropout":
        """The same layer with p = 0."""
        return replace(self, p=0.0)

    def with_seed(self, seeds: Iterator[int]) -> "Dropout":
        """The same layer with the next of `seeds`."""
        return replace(self, seed=next(seeds))


# ---- all layers of a net -------------------------------------------------------------


def evaluated(layers: Iterable[Any]) -> list:
    """The layers without dropout; also those inside a layer."""
    return changed(layers, lambda layer: layer.evaluation())


def has_dropout(layers: Iterable[Any]) -> bool:
    """Whether a Dropout that drops something is among the layers, or inside one."""
    return any(isinstance(layer, Dropout) and layer.p > 0 for _, layer in with_inner(layers))


def reseeded(layers: Iterable[Any], seed: int) -> list:
    """The layers; those with a function `with_seed` with seeds made from one seed.

    Raises ArgumentError unless seed is an integer in [0, 2^64).
    """
    seeds = seeds_from(Dropout(seed=seed).seed)
    return changed(layers, lambda layer: layer.with_seed(seeds))


def changed(layers: Iterable[Any], change: Callable[[Dropout], Any]) -> list:
    """The layers, each Dropout in them as `change` returns it."""
    out = []
    for layer in layers:
        parts = getattr(layer, "parts", {})
        if isinstance(layer, Dropout):
            layer = change(layer)
        elif parts:
            layer = type(layer)(**{name: changed(inner, change) for name, inner in parts.items()})
        out.append(layer)
    return out


def seeds_from(seed: int) -> Iterator[int]:
    """Seeds without end, all different, from one."""
    number = 0
    while True:
        yield key_of(seed, number)
        number += 1


def expect_own_seeds(layers: Iterable[Any]) -> None:
    """Raise ArgumentError where two Dropouts have one seed: their masks would agree."""
    owners: dict[int, str] = {}
    for i, layer in with_inner(layers):
        if isinstance(layer, Dropout) and layer.p > 0:
            first = owners.setdefault(layer.seed, i)
            expect(
                first == i,
                f"layers[{i}]",
                f"a Dropout with another seed than layers[{first}]",
                repr(layer),
            )
