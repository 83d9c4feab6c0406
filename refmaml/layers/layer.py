"""What a layer is: names and shapes of its parameters, and four passes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

Array = Any  # of NumPy, or of whatever library the kernel set k allocates its arrays with
Arrays = dict[str, Array]  # parameters by name, or adjoints or tangents of them


class Layer:
    """The base of all layers, with the defaults of a layer that has no parameters.

    k            a kernel set
    w, rw        parameters and their tangents: {name: (T or 1, ...)}
    dw, rdw      their adjoints and the tangents of these, which a pass fills:
                 {name: (T, ...)}
    x, y         input and output (T, N, ...); dx, dy their adjoints; rx, ry their
                 tangents
    saved        what `forward` leaves for the later passes; rsaved: what `r_forward`
                 leaves
    need_dx      False in the first layer of a net, where no pass needs dx; None is
                 returned
    """

    def shapes(self) -> dict[str, tuple]:
        """{name: shape} of the parameters of one task."""
        return {}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial values of the parameters by name, in float64."""
        return {}

    def output_shape(self, shape: tuple) -> tuple:
        """The shape of one output for one input of `shape`.

        Raises ArgumentError for an input that the layer cannot take.
        """
        return tuple(shape)

    def forward(self, k: Any, w: Arrays, x: Array) -> tuple[Array, Any]:
        """(y, saved): y from the parameters w and the input x."""
        raise NotImplementedError

    def backward(
        self, k: Any, dw: Arrays, w: Arrays, saved: Any, dy: Array, need_dx: bool = True
    ) -> Array | None:
        """dx; fills dw."""
        raise NotImplementedError

    def r_forward(
        self, k: Any, w: Arrays, rw: Arrays, saved: Any, rx: Array | None
    ) -> tuple[Array, Any]:
        """(ry, rsaved): R{y} along (rw, rx); rx None is an input without a tangent."""
        raise NotImplementedError

    def r_backward(
        self, k: Any, rdw: Arrays, w: Arrays, rw: Arrays, saved: Any, rsaved: Any,
        dy: Array, rdy: Array, need_dx: bool = True,
    ) -> Array | None:  # fmt: skip
        """rdx = R{dx}; fills rdw = R{dw}."""
        raise NotImplementedError


# ---- layers that consist of layers: their `parts` are {name: layers} -----------------


def places(layers: Iterable[Any] | Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    """Pairs (place, layer): the names of a dict, or the numbers 0, 1, ..."""
    return layers.items() if isinstance(layers, Mapping) else enumerate(layers)


def with_inner(layers: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs (name, layer): ("3", Residual(...)), ("3.branch.0", Conv2d(...)), ..."""
    for i, layer in places(layers):
        yield f"{prefix}{i}", layer
        for part, inner in getattr(layer, "parts", {}).items():
            yield from with_inner(inner, f"{prefix}{i}.{part}.")
