"""Residual: the sum of two sequences of layers that read the same input.

Let b be the branch and s the shortcut, each a composition of layers; without layers s
is the identity. A sum is linear: it hands its adjoint to both terms, and has no term of
its own in any pass.

    forward      y   = b(x) + s(x)
    backward     dx  = dx of b from dy + dx of s from dy
    r_forward    ry  = R{b(x)} + R{s(x)}
    r_backward   rdx = R{dx of b} from (dy, rdy) + R{dx of s} from (dy, rdy)

Each term runs the same pass of its layers (sequence.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from refmaml.arguments import set_fields
from refmaml.errors import expect
from refmaml.layers import sequence
from refmaml.layers.activation import LeakyReLU, Softplus, Tanh
from refmaml.layers.batch_norm import BatchNorm2d
from refmaml.layers.bilinear import Conv2d, Linear
from refmaml.layers.layer import Array, Arrays, Layer
from refmaml.layers.pooling import AvgPool2d


class Saved:
    """What the forward pass saves: what each layer of each part saved.

    r_backward needs the adjoint of every inner output as well. The last backward pass
    leaves them here, with the dy they belong to; for another dy they are computed
    again.
    """

    def __init__(self, parts: dict[str, list]) -> None:
        self.parts = parts
        self.dy: Array = None
        self.need_dx = False
        self.dys: dict[str, list] = {}

    def has_adjoints(self, dy: Array, need_dx: bool) -> bool:
        """Whether adjoints are stored that belong to this dy."""
        return self.dy is dy and self.need_dx >= need_dx


def total(k: Any, a: Array, b: Array) -> Array:
    """a + b, where None stands for zeros."""
    if a is None or b is None:
        return b if a is None else a
    out = k.empty(a.shape, np.result_type(a.dtype, b.dtype))
    k.xp.add(a, b, out=out)
    return out


@dataclass(frozen=True)
class Residual(Layer):
    """y = branch(x) + shortcut(x).

    branch    a list of layers, at least one
    shortcut  a list of layers; without layers: the identity

    Parameters: those of the layers, named as torch names them in a module with two
    Sequentials: "branch.0.weight", ..., "shortcut.0.weight", ...
    A pattern such as "BatchNorm2d" selects layers inside; "Residual" selects all of
    this layer, and so do "head" and "body".
    Raises ArgumentError unless both are lists of layers, and, for an input, unless both
    give outputs of one shape.
    Source: He et al. 2016, eq. 1-2.
    """

    branch: Sequence[Any]
    shortcut: Sequence[Any] = ()

    def __post_init__(self) -> None:
        for name, layers in self.parts.items():
            expect(
                isinstance(layers, tuple | list) and all(map(is_layer, layers)),
                name,
                "a list of layers, such as [Linear(3, 3), ReLU()]",
                partial(repr, layers),
            )
        expect(len(self.branch) > 0, "branch", "at least one layer", "none")
        set_fields(self, branch=tuple(self.branch), shortcut=tuple(self.shortcut))

    @classmethod
    def examples(cls):
        """[(layer, shape of one input), ...]: the cases of `refmaml verify`."""
        block = [Conv2d(2, 3, 3, padding=1, bias=False), BatchNorm2d(3), LeakyReLU(0.1)]
        return [
            (cls(block, [Conv2d(2, 3, 1, bias=False), BatchNorm2d(3)]), (2, 4, 3)),
            (cls([Linear(4, 4), Softplus()]), (4,)),
            (cls([Tanh(), Linear(4, 3)], [Linear(4, 3, bias=False)]), (4,)),
            (cls([Conv2d(2, 2, 3, stride=2, padding=1)], [AvgPool2d(2)]), (2, 4, 6)),
            (cls([cls([Conv2d(2, 2, 3, padding=1), Tanh()]), Conv2d(2, 2, 1)]), (2, 3, 4)),
        ]

    # ---- parameters and shapes -------------------------------------------------------

    @property
    def parts(self) -> dict[str, Sequence[Any]]:
        """{"branch": its layers, "shortcut": its layers}; all read the same input."""
        return {"branch": self.branch, "shortcut": self.shortcut}

    def of_part(self, part: str, arrays: Arrays) -> list[Arrays]:
        """For each layer of a part a dict of its arrays, out of this layer's arrays."""
        return [
            {name: arrays[f"{part}.{i}.{name}"] for name in layer.shapes()}
            for i, layer in enumerate(self.parts[part])
        ]

    def shapes(self) -> dict[str, tuple]:
        return {
            f"{part}.{i}.{name}": shape
            for part, layers in self.parts.items()
            for i, layer in enumerate(layers)
            for name, shape in layer.shapes().items()
        }

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {
            f"{part}.{i}.{name}": value
            for part, layers in self.parts.items()
            for i, layer in enumerate(layers)
            for name, value in layer.init(rng).items()
        }

    def output_shape(self, shape: tuple) -> tuple:
        branch, shortcut = (
            sequence.output_shape(layers, shape, part) for part, layers in self.parts.items()
        )
        expect(
            branch == shortcut,
            "Residual",
            "a branch and a shortcut with outputs of one shape",
            f"{branch} and {shortcut}",
        )
        return branch

    # ---- the passes ------------------------------------------------------------------

    def forward(self, k, w, x):
        y, saved = None, {}
        for part, layers in self.parts.items():
            term, saved[part] = sequence.forward(k, layers, self.of_part(part, w), x)
            y = total(k, y, term)
        return y, Saved(saved)

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        dx, dys = None, {}
        for part, layers in self.parts.items():
            dw_part, w_part = self.of_part(part, dw), self.of_part(part, w)
            term, dys[part] = sequence.backward(
                k, layers, dw_part, w_part, saved.parts[part], dy, need_dx
            )
            dx = total(k, dx, term)
        saved.dy, saved.need_dx, saved.dys = dy, need_dx, dys
        return dx

    def r_forward(self, k, w, rw, saved, rx):
        ry, rsaved = None, {}
        for part, layers in self.parts.items():
            w_part, rw_part = self.of_part(part, w), self.of_part(part, rw)
            term, rsaved[part] = sequence.r_forward(
                k, layers, w_part, rw_part, saved.parts[part], rx
            )
            ry = total(k, ry, term)
        return ry, rsaved

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        if not saved.has_adjoints(dy, need_dx):
            dtype = np.result_type(dy.dtype, *(a.dtype for a in rdw.values()))
            unused = {name: k.xp.empty(a.shape, dtype) for name, a in rdw.items()}
            self.backward(k, unused, w, saved, dy, need_dx)
        rdx = None
        for part, layers in self.parts.items():
            rdw_part, w_part, rw_part = (self.of_part(part, a) for a in (rdw, w, rw))
            term = sequence.r_backward(
                k, layers, rdw_part, w_part, rw_part, saved.parts[part], rsaved[part],
                saved.dys[part], rdy, need_dx,
            )  # fmt: skip
            rdx = total(k, rdx, term)
        return rdx


def is_layer(value: Any) -> bool:
    """Whether a value is a layer, and not a layer's class."""
    return hasattr(value, "r_backward") and not isinstance(value, type)
