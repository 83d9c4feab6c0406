"""A chain of layers with a loss: loss, gradient, Hessian- and Gauss-Newton-vector products over flat parameter vectors.

Nothing here knows what any layer does. Tasks travel together: parameters are w (T, P), or (1, P) where all tasks share them, inputs
x (T, N, ...), targets y (T, N, ...); losses come back as (T,), gradients and products as (T, P), a row per task.

On a GPU all of it stays there. NumPy's arrays are taken there, and what depends on a NumPy w, theta or v is returned as one; a Primal holds
arrays of the GPU. Labels are checked on the way there, and not again: looking at them would be a wait.
"""

from copy import copy
from dataclasses import dataclass
from itertools import accumulate
from math import prod

import numpy as np

from refmaml import kernels as kernel_sets
from refmaml.errors import expect
from refmaml.execution.device_transfer import bring_pass
from refmaml.execution.fusion import fused_layers, plan
from refmaml.layers.losses import CrossEntropy
from refmaml.nonfinite import note, refuse_pass
from refmaml.parameters import Parameters


@dataclass(frozen=True)
class Primal:
    """One forward and backward pass at w, kept so that R-passes need not repeat it.

    loss (T,), accuracy (T,) or None, grad (T, P), outputs z (T, N, D); the rest is what each layer saved, the adjoint dy of each
    layer's output, and what the loss saved; or, of a chain that ran as one kernel, what that kept.
    """

    w: list
    outputs: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None
    grad: np.ndarray
    saved: list
    dys: list
    loss_saved: tuple
    chained: object = None
    gradient_is_finite: np.ndarray | None = None


class Sequential:
    """layers, then a loss. net.num_params is P; net.shapes names the parameters as torch.nn.Sequential would.

    layers       layers of refmaml.layers, in order
    loss         CrossEntropy(...) or MSE(...)
    input_shape  the shape of one input, (C, H, W) or (F,); where given, shapes are checked at once
    kernels      the kernel set every layer computes with
    """

    def __init__(self, layers, loss=CrossEntropy(), input_shape=None, kernels=None):  # noqa: B008 (frozen)
        self.layers, self.loss_function = tuple(layers), loss
        self.kernels = kernels if kernels is not None else kernel_sets.reference()
        self.parameters = Parameters(self.layers)
        expect(
            self.num_params > 0,
            "layers",
            "at least one layer with parameters",
            f"{len(self.layers)} layers",
        )
        self.first = min(
            self.parameters.layer_of.values()
        )  # nothing before this layer needs a derivative
        self.passes = fused_layers(
            self.layers, self.kernels
        )  # the same, with what these kernels do at once
        self.outputs, self.sizes, self.chains, self.movers = (
            {},
            {},
            {},
            {},
        )  # found out once for each shape or choice
        self.input_shape, self.seen = input_shape, None
        if input_shape is not None:
            self.output_shape(tuple(input_shape))

    @property
    def num_params(self):
        """P, the length of the flat parameter vector."""
        return self.parameters.size

    @property
    def shapes(self):
        """{"0.weight": shape, ...} in the order of the flat vector."""
        return self.parameters.shapes

    def __repr__(self):
        lines = "".join(f"\n  {i}: {layer}" for i, layer in enumerate(self.layers))
        return f"Sequential({self.num_params} parameters, {self.loss_function}){lines}"

    def with_kernels(self, kernels):
        """The same net on another kernel set."""
        return Sequential(self.layers, self.loss_function, self.input_shape, kernels)

    def with_loss(self, loss):
        """The same net with another loss, e.g. another scale in front of it."""
        return Sequential(self.layers, loss, self.input_shape, self.kernels)

    def init(self, seed=0, dtype=np.float32):
        """A random start (P,) by each layer's own rule; seed is an integer or a numpy Generator."""
        return self.parameters.init(np.random.default_rng(seed), dtype)

    def named(self, theta):
        """{"0.weight": array, ...}, views of the flat vector theta (P,)."""
        return self.parameters.named(theta)

    def flat(self, named, dtype=None):
        """The flat vector (P,) of a state dict as NumPy arrays; see Parameters.flat."""
        return self.parameters.flat(named, dtype)

    def name_of(self, place):
        """ " (0.weight)" for an entry of the flat vector: how error messages name it."""
        return next(
            f" ({name})"
            for name, part in self.parameters.slices.items()
            if part.start <= place < part.stop
        )

    @property
    def blocks(self):
        """The slices of the flat vector that hold one named array each, in order."""
        return list(self.parameters.slices.values())

    def mask(self, patterns):
        """(P,) of bools: the parameters that a tuple of names, wildcards or layer classes selects; see Parameters.mask."""
        return self.parameters.mask(patterns)

    def adapt_mask(self, adapts, frozen=()):
        """(P,) of bools where the kernels compute: what `adapts` selects and `frozen` does not. Found out, and taken there, once."""
        key = tuple(adapts), tuple(frozen)
        if key not in self.movers:
            (self.movers[key],) = self.kernels.to_device(
                self.mask(adapts) & ~self.mask(frozen) if frozen else self.mask(adapts)
            )
        return self.movers[key]

    def output_shape(self, shape):
        """The shape of the outputs for one input of `shape`; a layer that cannot take its input says so."""
        if shape not in self.outputs:
            out = shape
            for i, layer in enumerate(self.layers):
                try:
                    out = layer.output_shape(out)
                except ValueError as error:
                    raise type(error)(f"layer {i}: {error}") from None
            self.outputs[shape] = out
        return self.outputs[shape]

    def activations(self, shape):
        """How many numbers the layers put out for inputs of `shape` (examples, ...)."""
        examples, shape = shape[0], tuple(shape[1:])
        if shape not in self.sizes:
            outputs = accumulate(
                self.layers, lambda shape, layer: layer.output_shape(shape), initial=shape
            )
            self.sizes[shape] = sum(map(prod, outputs)) - prod(shape)
        return examples * self.sizes[shape]

    def check(self, w, x, y):
        """Raise ArgumentError unless parameters, inputs and targets fit each other and the net."""
        expect(
            w.ndim == 2 and w.shape[1] == self.num_params,
            "w",
            lambda: f"shape (tasks, {self.num_params})",
            lambda: f"{w.shape}",
        )
        self.check_set(x, y, values=not self.kernels.on_device)
        expect(
            len(w) in (1, len(x)),
            "w",
            lambda: f"a row for each of {len(x)} tasks, or one for all",
            lambda: f"{len(w)} rows",
        )

    def check_set(self, x, y, values=True):
        """The same of inputs and targets alone; values: look at the targets' values too."""
        expect(x.ndim >= 3, "x", "shape (tasks, examples, ...)", lambda: f"{x.shape}")
        expect(x.dtype.kind in "fc", "x", "real numbers", lambda: f"dtype {x.dtype}")
        expect(
            x.shape[0] > 0 and x.shape[1] > 0,
            "x",
            "at least one task and one example",
            lambda: f"shape {x.shape}",
        )
        outputs = self.output_shape(x.shape[2:])
        self.loss_function.check(outputs, y, x.shape[:2])
        if values:
            self.loss_function.check_values(outputs, self.loss_function.extremes(y))

    # ---- the passes -------------------------------------------------------------------------------------------------

    def forward(self, w, x, keep=True):
        """Outputs z (T, N, D), and what each layer saved (None with keep=False). w: per-layer dicts of arrays."""
        saved = []
        for layer, wl in zip(self.passes, w, strict=True):
            x, kept = layer.forward(self.kernels, wl, x)
            saved.append(kept if keep else None)
        return x, saved

    def backward(self, w, saved, dz):
        """The gradient (T, P) from the outputs' adjoint dz, and the adjoint dy of each layer's output."""
        grad = self.kernels.xp.empty((len(dz), self.num_params), dz.dtype)
        dw, dys, dy = self.parameters.views(grad), [None] * len(self.layers), dz
        for i in range(len(self.layers) - 1, self.first - 1, -1):
            dys[i] = dy
            dy = self.passes[i].backward(
                self.kernels, dw[i], w[i], saved[i], dy, need_dx=i > self.first
            )
        return grad, dys

    def r_forward(self, primal, v):
        """R{z}, the tangent of the outputs along parameters v, and what each layer saved of it."""
        rw, rsaved, rx = self.parameters.views(v), [None] * len(self.layers), None
        for i in range(self.first, len(self.layers)):
            rx, rsaved[i] = self.passes[i].r_forward(
                self.kernels, primal.w[i], rw[i], primal.saved[i], rx
            )
        return rx, rsaved

    def r_backward(self, primal, v, rsaved, rdz):
        """R{grad}: the tangent of `backward` along v, from the tangent rdz of the outputs' adjoint."""
        product = self.kernels.xp.empty((len(rdz), self.num_params), rdz.dtype)
        rw, rdw, rdy = self.parameters.views(v), self.parameters.views(product), rdz
        for i in range(len(self.layers) - 1, self.first - 1, -1):
            rdy = self.passes[i].r_backward(
                self.kernels,
                rdw[i],
                primal.w[i],
                rw[i],
                primal.saved[i],
                rsaved[i],
                primal.dys[i],
                rdy,
                need_dx=i > self.first,
            )
        return product

    # ---- what the methods ask for -----------------------------------------------------------------------------------

    def loss(self, w, x, y):
        """L(w; x, y) for each task, (T,): a forward pass and nothing kept."""
        here, x, y = bring_pass(self, w, x, y)
        self.check(here, x, y)
        with np.errstate(all="ignore"):  # non-finite values are found and named, not warned about
            z, _ = self.forward(self.parameters.views(here), x, keep=False)
            return self.kernels.match_input(self.loss_function.forward(self.kernels, z, y)[0], w)

    def primal(self, w, x, y, keep=True):
        """Loss and gradient for each task; keep=False drops what only R-passes would need."""
        w, x, y = bring_pass(self, w, x, y)
        self.check(w, x, y)
        chain = self.chain(x.shape[2:], np.result_type(w.dtype, x.dtype))
        if chain is not None:
            return self.chained_primal(chain, w, x, y, keep)
        views = self.parameters.views(w)
        with np.errstate(all="ignore"):
            z, saved = self.forward(views, x)
            loss, loss_saved = self.loss_function.forward(self.kernels, z, y)
            grad, dys = self.backward(
                views, saved, self.loss_function.backward(self.kernels, loss_saved)
            )
        accuracy = self.loss_function.accuracy(z, y)
        return Primal(
            views,
            z,
            loss,
            accuracy,
            grad,
            *((saved, dys, loss_saved) if keep else (None, None, None)),
        )

    def unrolled(self, phi, rates, batch, order=2, recompute=False):
        """The inner loop from phi (1 or T, P) with step sizes A_k (P,), and the way back through it, as one kernel.

        A Primal of the query set, with lam_0 for its gradient; or, of order 1, lam_K. recompute: run the pass of each step again on the
        way back instead of keeping it. None where there is no such kernel, or where numbers overflowed: step by step, they are named.
        """
        chain = self.chain(
            batch.x_support.shape[2:], np.result_type(phi.dtype, batch.x_support.dtype)
        )
        if chain is None or batch.x_support.shape[2:] != batch.x_query.shape[2:]:
            return None
        sets = (batch.x_support, batch.y_support), (batch.x_query, batch.y_query)
        for x, y in sets:
            self.check(phi, x, y)
        D = self.output_shape(batch.x_support.shape[2:])[0]
        support, query = ((x, y, self.loss_function.scale(x.shape[1], D)) for x, y in sets)
        out = chain.unrolled(
            phi, rates, support, query, order, len(rates) if order > 1 and not recompute else 1
        )
        after = self.primal_of(out, batch.y_query)
        return after if self.finite(after) else None

    def chain(self, shape, dtype):
        """The net on inputs of `shape` as one kernel, or None: it has no plan, or the kernel set goes layer by layer."""
        if self.kernels.chain is None or dtype.kind == "c":
            return None
        if shape not in self.chains:
            planned = plan(self, shape)
            self.chains[shape] = planned and self.kernels.chain(*planned)
        return self.chains[shape]

    def chained_primal(self, chain, w, x, y, keep):
        """`primal` by one kernel."""
        out = chain.primal(
            w, x, y, self.loss_function.scale(x.shape[1], self.output_shape(x.shape[2:])[0]), keep
        )
        return self.primal_of(out, y, (chain, out.kept))

    def primal_of(self, out, y, chained=None):
        """What a kernel put out, as a Primal."""
        return Primal(
            None,
            out.z,
            out.loss,
            self.loss_function.accuracy(out.z, y),
            out.grad,
            None,
            None,
            None,
            chained,
            out.finite,
        )

    def gradient(self, w, x, y):
        """dL/dw for each task, (T, P)."""
        return self.kernels.match_input(self.primal(w, x, y, keep=False).grad, w)

    def hvp(self, primal, v):
        """H v for each task, H = d^2 L / dw^2 at the primal's w; v is (T, P) or (1, P). Pearlmutter 1994."""
        if primal.chained is not None:
            chain, kept = primal.chained
            return chain.product(kept, v)
        (here,) = self.kernels.to_device(v)
        with np.errstate(all="ignore"):
            rz, rsaved = self.r_forward(primal, here)
            rdz = self.loss_function.r_backward(self.kernels, primal.loss_saved, rz)
            return self.kernels.match_input(self.r_backward(primal, here, rsaved, rdz), v)

    def gauss_newton_product(self, primal, v):
        """J' H_L J v for each task: J the Jacobian of the outputs, H_L the loss's Hessian in them. Schraudolph 2002."""
        if primal.chained is not None:
            chain, kept = primal.chained
            return chain.product(kept, v, gauss_newton=True)
        (here,) = self.kernels.to_device(v)
        with np.errstate(all="ignore"):
            rdz = self.loss_function.r_backward(
                self.kernels, primal.loss_saved, self.r_forward(primal, here)[0]
            )
            return self.kernels.match_input(self.backward(primal.w, primal.saved, rdz)[0], v)

    def hessian(self, theta, x, y):
        """The Hessian at theta (P,) of the mean loss over the tasks of x, y, as a scipy LinearOperator, which takes NumPy's vectors."""
        from refmaml.operators import CurvatureOperator  # scipy is imported where it is used

        return CurvatureOperator(self, self.hvp, theta, x, y)

    def gauss_newton(self, theta, x, y):
        """The Gauss-Newton matrix at theta (P,) of the mean loss over tasks, as a scipy LinearOperator."""
        from refmaml.operators import CurvatureOperator

        return CurvatureOperator(self, self.gauss_newton_product, theta, x, y)

    def finite(self, primal):
        """Whether loss and gradient are finite numbers in every task, where the kernels compute."""
        xp, known = self.kernels.xp, primal.gradient_is_finite
        return (
            xp.isfinite(primal.loss).all()
            & (xp.isfinite(primal.grad) if known is None else known).all()
        )

    def watched(self):
        """This net for one call: `require_finite` notes in `seen` whether a pass was finite, and does not look."""
        net = copy(self)
        net.seen = []
        return net

    def require_finite(self, primal, w, x, stage):
        """Raise NonFiniteError naming the first task and layer that left the finite numbers, if loss or gradient did."""
        note(self, self.finite(primal), lambda: refuse_pass(self, primal, w, x, stage))
