"""A sequence of layers with a loss: loss, gradient, Hessian-vector products.

Parameters are flat vectors, and tasks travel together: w (T, P), or (1, P) where all
tasks share them, inputs x (T, N, ...), targets y (T, N, ...). Losses come back as (T,),
gradients and products as (T, P), a row for each task. Nothing here knows what a layer
does: see layers/ for the four passes that each layer writes out.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import numpy as np

from refmaml.arrays import complex_product, direction, expect_array
from refmaml.errors import expect
from refmaml.kernels.reference_set import reference
from refmaml.layers.layer import Array, Arrays
from refmaml.layers.losses import CrossEntropy
from refmaml.model import Model
from refmaml.parameters import Parameters
from refmaml.primal import Primal


class Network(Model):
    """Layers, then a loss. num_params is P; shapes names the parameters as torch does.

    layers       layers of refmaml.layers, in order; or {name: layer}, where the names
                 take the place of "0", "1", ...
    loss         CrossEntropy(...), MSE(...) or another loss of refmaml.layers
    input_shape  the shape of one input, (C, H, W) or (F,); where given, the layers'
                 shapes are checked at once
    kernels      the kernel set that every layer computes with; None: the reference
    Raises ArgumentError where layers, loss or shapes do not fit each other.
    """

    def __init__(
        self, layers: Iterable[Any] | Mapping[str, Any], loss: Any = None,
        input_shape: tuple | None = None, kernels: Any = None,
    ) -> None:  # fmt: skip
        items = layers.items() if isinstance(layers, Mapping) else enumerate(layers)
        self.named_layers = {str(name): layer for name, layer in items}
        self.layers, self.names = tuple(self.named_layers.values()), tuple(self.named_layers)
        self.loss_function = CrossEntropy() if loss is None else loss
        for i, layer in enumerate(self.layers):
            ok = hasattr(layer, "r_backward") and not isinstance(layer, type)
            expect(ok, f"layers[{i}]", "a layer, such as Linear(3, 5)", partial(repr, layer))
        ok = hasattr(self.loss_function, "r_backward") and not isinstance(loss, type)
        expect(ok, "loss", "a loss, such as MSE()", lambda: repr(loss))
        self.kernels = reference() if kernels is None else kernels
        self.parameters = Parameters(self.named_layers)
        ok = self.num_params > 0
        expect(ok, "layers", "at least one layer with parameters", f"{len(self.layers)} layers")
        self.first = min(self.parameters.layer_of.values())  # no layer before needs a derivative
        self.passes = self.layers  # a subclass may compute several layers at once
        self.output_shapes: dict[tuple, tuple] = {}  # cached: input shape -> output shape
        self.input_shape = None if input_shape is None else tuple(input_shape)
        if self.input_shape is not None:
            self.output_shape(self.input_shape)

    def __reduce__(self) -> tuple:
        """Copies and pickles are built from the same parts, without cached values."""
        return type(self), (self.named_layers, self.loss_function, self.input_shape, self.kernels)

    @property
    def num_params(self) -> int:
        """P, the length of the flat parameter vector."""
        return self.parameters.size

    @property
    def shapes(self) -> dict[str, tuple]:
        """{"0.weight": shape, ...} in the order of the flat vector."""
        return self.parameters.shapes

    @property
    def blocks(self) -> list[slice]:
        """The slices of the flat vector that hold one named array each, in order."""
        return list(self.parameters.slices.values())

    def __repr__(self) -> str:
        lines = "".join(f"\n  {name}: {layer}" for name, layer in self.named_layers.items())
        return f"Sequential({self.num_params} parameters, {self.loss_function}){lines}"

    def with_kernels(self, kernels: Any) -> Self:
        """The same net on another kernel set."""
        return type(self)(self.named_layers, self.loss_function, self.input_shape, kernels)

    def with_loss(self, loss: Any) -> Self:
        """The same net with another loss, e.g. another scale in front of it."""
        return type(self)(self.named_layers, loss, self.input_shape, self.kernels)

    # ---- parameters ------------------------------------------------------------------

    def init(self, seed: int | np.random.Generator = 0, dtype: Any = np.float32) -> np.ndarray:
        """A random start (P,) by each layer's own rule; dtype: float or complex."""
        expect(np.dtype(dtype).kind in "fc", "dtype", "a float or complex dtype", f"{dtype}")
        return self.parameters.init(np.random.default_rng(seed), dtype)

    def named(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """{"0.weight": array, ...}, views of the flat vector theta (P,)."""
        return self.parameters.named(theta)

    def flat(self, named: dict[str, Any], dtype: Any = None) -> np.ndarray:
        """The flat vector (P,) of a state dict as NumPy arrays; see Parameters.flat."""
        return self.parameters.flat(named, dtype)

    def name_of(self, place: int) -> str:
        """ " (0.weight)" for an entry of the flat vector, for error messages."""
        slices = self.parameters.slices.items()
        return next(f" ({name})" for name, part in slices if part.start <= place < part.stop)

    def mask(self, patterns: tuple) -> Array:
        """(P,) of bools: the parameters that the patterns select; see Parameters."""
        return self.parameters.mask(patterns)

    # ---- shapes ----------------------------------------------------------------------

    def output_shape(self, shape: tuple) -> tuple:
        """The shape of the outputs for one input of `shape`.

        Raises ArgumentError, naming the layer, where a layer cannot take its input.
        """
        if shape not in self.output_shapes:
            out = shape
            for name, layer in self.named_layers.items():
                try:
                    out = layer.output_shape(out)
                except ValueError as error:
                    raise type(error)(f"layer {name}: {error}") from None
            self.output_shapes[shape] = out
        return self.output_shapes[shape]

    def check(self, w: Array, x: Array, y: Array) -> None:
        """Raise ArgumentError unless parameters, inputs, targets and net fit."""
        P, T = self.num_params, len(x)
        expect_array("w", w, self.kernels)
        expect(w.ndim == 2 and w.shape[1] == P, "w", f"shape (tasks, {P})", lambda: f"{w.shape}")
        self.check_set(x, y)
        expect(
            len(w) in (1, T),
            "w",
            lambda: f"a row for each of {T} tasks, or one for all",
            lambda: f"{len(w)} rows",
        )

    def check_set(self, x: Array, y: Array, values: bool = True) -> None:
        """Raise ArgumentError unless inputs and targets fit each other and the net.

        values  also check the targets' values, such as labels in range
        """
        expect_array("x", x, self.kernels)
        expect_array("y", y, self.kernels)
        expect(x.ndim >= 3, "x", "shape (tasks, examples, ...)", lambda: f"{x.shape}")
        expect(x.dtype.kind in "fc", "x", "real numbers", lambda: f"dtype {x.dtype}")
        ok = x.shape[0] > 0 and x.shape[1] > 0
        expect(ok, "x", "at least one task and one example", lambda: f"shape {x.shape}")
        outputs = self.output_shape(x.shape[2:])
        self.loss_function.check(outputs, y, x.shape[:2])
        if values:
            self.loss_function.check_values(outputs, self.loss_function.extremes(y))

    # ---- the passes ------------------------------------------------------------------

    def forward(self, w: list[Arrays], x: Array, keep: bool = True) -> tuple[Array, list]:
        """Outputs z (T, N, D), and what each layer saved (None with keep=False).

        w  for each layer a dict of its arrays, as Parameters.views makes it
        """
        saved = []
        for layer, wl in zip(self.passes, w, strict=True):
            x, kept = layer.forward(self.kernels, wl, x)
            saved.append(kept if keep else None)
        return x, saved

    def backward(self, w: list[Arrays], saved: list, dz: Array) -> tuple[Array, list]:
        """The gradient (T, P) from the outputs' adjoint dz, and each layer's dy."""
        grad = self.kernels.xp.empty((len(dz), self.num_params), dz.dtype)
        dw, dys, dy = self.parameters.views(grad), [None] * len(self.layers), dz
        for i in range(len(self.layers) - 1, self.first - 1, -1):
            dys[i] = dy
            need_dx = i > self.first
            dy = self.passes[i].backward(self.kernels, dw[i], w[i], saved[i], dy, need_dx=need_dx)
        return grad, dys

    def r_forward(self, primal: Primal, v: Array) -> tuple[Array, list]:
        """R{z}, the tangent of the outputs along v, and what each layer saved."""
        rw, rsaved, rx = self.parameters.views(v), [None] * len(self.layers), None
        for i in range(self.first, len(self.layers)):
            layer, w, saved = self.passes[i], primal.w[i], primal.saved[i]
            rx, rsaved[i] = layer.r_forward(self.kernels, w, rw[i], saved, rx)
        return rx, rsaved

    def r_backward(self, primal: Primal, v: Array, rsaved: list, rdz: Array) -> Array:
        """R{grad}: the tangent of `backward` along v, from the tangent rdz of dz."""
        product = self.kernels.xp.empty((len(rdz), self.num_params), rdz.dtype)
        rw, rdw, rdy = self.parameters.views(v), self.parameters.views(product), rdz
        for i in range(len(self.layers) - 1, self.first - 1, -1):
            rdy = self.passes[i].r_backward(
                self.kernels, rdw[i], primal.w[i], rw[i], primal.saved[i], rsaved[i],
                primal.dys[i], rdy, need_dx=i > self.first,
            )  # fmt: skip
        return product

    def layer_outputs(self, w: Array, x: Array) -> Iterator[tuple[str, Any, Array]]:
        """(name, layer, its outputs) in a forward pass at w (T, P)."""
        for (name, layer), wl in zip(
            self.named_layers.items(), self.parameters.views(w), strict=True
        ):
            x, _ = layer.forward(self.kernels, wl, x)
            yield name, layer, x

    # ---- loss, gradient and products -------------------------------------------------

    def loss(self, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """L(w; x, y) for each task, (T,): a forward pass that keeps nothing."""
        self.check(w, x, y)
        with np.errstate(all="ignore"):  # finiteness checks find what is not finite
            z, _ = self.forward(self.parameters.views(w), x, keep=False)
            return self.loss_function.forward(self.kernels, z, y)[0]

    def primal(self, w: Array, x: Array, y: Array, keep: bool = True) -> Primal:
        """Loss and gradient for each task; keep=False drops what only R-passes need."""
        self.check(w, x, y)
        views = self.parameters.views(w)
        with np.errstate(all="ignore"):
            z, saved = self.forward(views, x)
            loss, loss_saved = self.loss_function.forward(self.kernels, z, y)
            dz = self.loss_function.backward(self.kernels, loss_saved)
            grad, dys = self.backward(views, saved, dz)
        accuracy = self.loss_function.accuracy(z, y)
        kept = (saved, dys, loss_saved) if keep else (None, None, None)
        return Primal(views, z, loss, accuracy, grad, *kept)

    def gradient(self, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """dL/dw for each task, (T, P)."""
        return self.primal(w, x, y, keep=False).grad

    def hvp(self, primal: Primal, v: np.ndarray) -> np.ndarray:
        """H v for each task, H = d^2 L / dw^2 at the primal's w; v is (T or 1, P).

        H v = R{grad}: one R-pass forward, one backward. Source: Pearlmutter 1994.
        Raises ArgumentError for a v of another shape or another kind of numbers.
        """
        return complex_product(self.real_hvp, primal, direction(primal, v, self.kernels))

    def real_hvp(self, primal: Primal, v: Array) -> Array:
        """`hvp` along v of the primal's own kind of numbers."""
        with np.errstate(all="ignore"):
            rz, rsaved = self.r_forward(primal, v)
            rdz = self.loss_function.r_backward(self.kernels, primal.loss_saved, rz)
            return self.r_backward(primal, v, rsaved, rdz)

    def gauss_newton_product(self, primal: Primal, v: np.ndarray) -> np.ndarray:
        """J' H_L J v for each task: J the outputs' Jacobian, H_L the loss's Hessian.

        v is (T or 1, P). Source: Schraudolph 2002. Raises ArgumentError as `hvp` does.
        """
        v = direction(primal, v, self.kernels)
        return complex_product(self.real_gauss_newton_product, primal, v)

    def real_gauss_newton_product(self, primal: Primal, v: Array) -> Array:
        """`gauss_newton_product` along v of the primal's own kind of numbers."""
        with np.errstate(all="ignore"):
            rz, _ = self.r_forward(primal, v)
            rdz = self.loss_function.r_backward(self.kernels, primal.loss_saved, rz)
            return self.backward(primal.w, primal.saved, rdz)[0]
