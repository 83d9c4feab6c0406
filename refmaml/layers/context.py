"""Context: numbers that belong to the task, appended to every input; what CAVIA adapts in place of the weights."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Context:
    """y = [x, c]: a context vector c (size,) appended to vectors (F,), or as constant channels to images (C, H, W).

    Parameter: context (size,), 0 at the start. Linear, so every R-pass is the pass on the tangent.
    Source: Zintgraf et al. 2019 (CAVIA), section 3.3: context parameters concatenated to the input of a layer.
    """

    size: int

    def shapes(self):
        return {"context": (self.size,)}

    def output_shape(self, shape):
        return (shape[0] + self.size, *shape[1:])

    def init(self, rng):
        return {"context": np.zeros(self.size)}

    def append(self, k, x, context):
        """[x, context]; context is (T, size) or (1, size)."""
        T, N, C, *rest = x.shape
        y = k.empty((T, N, C + self.size, *rest), np.result_type(x.dtype, context.dtype))
        y[:, :, :C] = x
        y[:, :, C:] = context.reshape(len(context), 1, self.size, *(1 for _ in rest))
        return y

    def split(self, dw, dy):
        """dcontext = the sum of the appended part over examples and positions; dx = the rest."""
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
