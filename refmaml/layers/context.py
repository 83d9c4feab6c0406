"""Context: numbers of the task, appended to every input. CAVIA adapts these alone."""

from dataclasses import dataclass

import numpy as np

from refmaml.arguments import check_integer, set_fields
from refmaml.errors import expect
from refmaml.layers.layer import Layer


@dataclass(frozen=True)
class Context(Layer):
    """y = [x, c]: a context vector c (size,) appended to every input.

    Vectors (F,) become (F + size,); images (C, H, W) get `size` constant channels.
    Parameter: context (size,), 0 at the start. The layer is linear, so every R-pass is
    the pass itself on the tangent.
    Raises ArgumentError unless size is an integer >= 1.
    Source: Zintgraf et al. 2019 (CAVIA), section 3.3: context parameters concatenated
    to the input of a layer.
    """

    size: int

    def __post_init__(self) -> None:
        set_fields(self, size=check_integer("size", self.size))

    def shapes(self) -> dict[str, tuple]:
        return {"context": (self.size,)}

    def output_shape(self, shape: tuple) -> tuple:
        expect(len(shape) > 0, "input of Context", "shape (C, ...)", "shape ()")
        return (shape[0] + self.size, *shape[1:])

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"context": np.zeros(self.size)}

    def append(self, k, x, context):
        """[x, context]; context is (T, size) or (1, size)."""
        T, N, C, *extents = x.shape
        y = k.empty((T, N, C + self.size, *extents), np.result_type(x.dtype, context.dtype))
        y[:, :, :C] = x
        y[:, :, C:] = context.reshape(len(context), 1, self.size, *(1 for _ in extents))
        return y

    def split(self, dw, dy):
        """dx; dcontext is the appended part summed over examples and positions."""
        channels = dy.shape[2] - self.size
        appended = dy[:, :, channels:]
        dw["context"][...] = appended.sum(axis=(1, *range(3, dy.ndim)))
        return dy[:, :, :channels].copy()

    def forward(self, k, w, x):
        return self.append(k, x, w["context"]), x.shape

    def backward(self, k, dw, w, x_shape, dy, need_dx=True):
        return self.split(dw, dy)

    def r_forward(self, k, w, rw, x_shape, rx):
        rx = k.xp.zeros(x_shape, rw["context"].dtype) if rx is None else rx
        return self.append(k, rx, rw["context"]), None

    def r_backward(self, k, rdw, w, rw, x_shape, rsaved, dy, rdy, need_dx=True):
        return self.split(rdw, rdy)
