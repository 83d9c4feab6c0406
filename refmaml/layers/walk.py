"""All layers of a net in order, those inside other layers included.

A layer that consists of layers has

    parts                   {name: its layers}; all parts read the input of the layer
    of_part(part, arrays)   for each layer of a part a dict of its arrays
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from refmaml.layers.layer import Array, Arrays, places, with_inner


class Visit(NamedTuple):
    """One layer of a walk.

    name    its place: "3", or "3.branch.0" inside a layer
    before  the shape of one input of it
    after   the shape of one output
    """

    name: str
    layer: Any
    before: tuple
    after: tuple


def all_layers(layers: Iterable[Any]) -> list[Any]:
    """The layers, each followed by those inside it."""
    return [layer for _, layer in with_inner(layers)]


def walk(layers: Any, shape: tuple, prefix: str = "") -> Iterator[Visit]:
    """Visits of all layers, for inputs of `shape`; layers inside a layer before it."""
    for i, layer in places(layers):
        for part, inner in getattr(layer, "parts", {}).items():
            yield from walk(inner, shape, f"{prefix}{i}.{part}.")
        after = tuple(layer.output_shape(shape))
        yield Visit(f"{prefix}{i}", layer, tuple(shape), after)
        shape = after


def outputs(
    k: Any, layers: Any, w: list[Arrays], x: Array, prefix: str = ""
) -> Iterator[tuple[str, Any, Array]]:
    """(name, layer, its outputs) in a forward pass; layers inside a layer before it."""
    for (i, layer), wl in zip(places(layers), w, strict=True):
        for part, inner in getattr(layer, "parts", {}).items():
            yield from outputs(k, inner, layer.of_part(part, wl), x, f"{prefix}{i}.{part}.")
        x, _ = layer.forward(k, wl, x)
        yield f"{prefix}{i}", layer, x
