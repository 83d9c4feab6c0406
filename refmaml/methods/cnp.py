"""Conditional neural process: an encoder of the support set in place of an inner loop.

The net is the decoder, with a Context (or FiLM) layer for what it knows of the task.
CAVIA finds the context's numbers by gradient descent on the support loss; here another
net, the encoder h, computes them in one pass, from each example alone:

    r   = (1/N) sum_n h(eta; [x_n, y_n])        phi = (theta, context r)
    M(theta, eta) = g(phi)

With the Context as first layer the decoder's input is [x, r], as in the paper. For
classes (by_class) the paper has a mean for each, one class after another: r_c is that
of h(eta; x_n) over the N_c examples of class c. Both are r_c = sum_n s_nc h_n with
shares s, 1/N in one column, or 1/N_c where n is of class c. r enters phi alone:

    (dtheta, dr) = grad g(phi)   dh_n = sum_c s_nc dr_c   deta = sum_n (dh_n/deta)' dh_n

R{.} of these lines, along v = (rtheta, reta), is the Hessian of M times v: a tangent
pass of the encoder, whose means are rr; a product of g along (rtheta, rr), which gives
rdtheta and rdr; a tangent of the encoder's backward pass, from the shares of rdr.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from refmaml.arguments import check_integer, set_fields
from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.layers import MSE, Linear, ReLU
from refmaml.layers.layer import Array
from refmaml.methods.adapt import adapt
from refmaml.methods.features import Features
from refmaml.methods.inner_loop_adjoint import query_pass
from refmaml.methods.meta_gradient import TaskGradients, meta_gradient
from refmaml.methods.meta_hessian import hvp
from refmaml.methods.symmetric_solves import times, transposed_times
from refmaml.nonfinite import refuse_non_finite


@dataclass(frozen=True)
class CNP:
    """phi = (theta, context r), r the mean of an encoder's outputs; see the module.

    encoder       sizes of its hidden layers, each with a ReLU after it
    encoder_seed  of its start, by Linear's own rule
    by_class      a mean for each class, of inputs alone; targets are labels, and the
                  context's size is a multiple of the number of classes
    Meta-parameters (P + E,): [theta, eta]; theta's entries for the context are not
    used, and their derivatives are 0. An example enters the encoder as one vector:
    inputs, then targets, labels as unit vectors (by_class: inputs alone). The order of
    a support set changes nothing but rounding, and its size may differ from that of
    training.
    Works with every net that has an input_shape and a context, and with every loss; the
    paper's is BoundedGaussianNLL(full=True).
    Raises ArgumentError, NonFiniteError.
    Source: Garnelo et al. 2018 (conditional neural processes), section 2, eq. 1-4;
    by_class: their section on classification.
    """

    encoder: tuple[int, ...] = (64, 64)
    encoder_seed: int = 0
    by_class: bool = False
    data_independent = True  # which operations run depends on shapes alone
    meta_gradient = meta_gradient
    adapt = adapt
    hvp = hvp

    def __post_init__(self) -> None:
        sizes, wanted = self.encoder, "a tuple of sizes of hidden layers, integers >= 1"
        expect(isinstance(sizes, tuple | list), "encoder", wanted, lambda: repr(sizes))
        seed = check_integer("encoder_seed", self.encoder_seed, least=0)
        sizes = tuple(check_integer("encoder", size) for size in sizes)
        expect(isinstance(self.by_class, bool), "by_class", "True or False", repr(self.by_class))
        set_fields(self, encoder=sizes, encoder_seed=seed)

    # ---- the encoder -----------------------------------------------------------------

    def encoder_net(self, net: Any) -> Any:
        """The net h, on the kernels of `net`: [x, y] (F + D,) -> (S,); by_class: x (F,)
        -> (S/C,).
        """
        size = sum(stop - start for start, stop in context_blocks(net))
        expect(net.input_shape is not None, "net", "an input_shape, for the encoder", "none")
        kind: Any = type(net)
        inputs, D = prod(net.input_shape), target_size(net)
        if self.by_class:
            wanted = f"a context whose size is a multiple of the {D} classes"
            expect(size % D == 0, "net", wanted, str(size))
            return encoder_of(kind, (inputs, *self.encoder, size // D), net.kernels)
        return encoder_of(kind, (inputs + D, *self.encoder, size), net.kernels)

    def inputs(self, net: Any, x: Array, y: Array, meta: Array) -> Array:
        """What the encoder reads of each example, (T, N, I), as precise as meta."""
        if self.by_class:
            return x.reshape(*x.shape[:2], -1).astype(meta.real.dtype)
        return joined(net, x, y, meta)

    def shares(self, net: Any, y: Array, meta: Array) -> Array:
        """s (T, N, 1), or (T, N, C) by_class: an example's part in each mean."""
        xp, dtype = net.kernels.xp, meta.real.dtype
        if not self.by_class:
            return xp.full((*y.shape[:2], 1), 1 / y.shape[1], dtype)
        expect(y.dtype.kind in "iu", "by_class", "labels as targets", lambda: str(y.dtype))
        member = (y[..., None] == xp.arange(target_size(net))).astype(dtype)
        sizes = member.sum(axis=1)[:, None]
        return member / xp.where(sizes > 0, sizes, 1)

    def init(self, net: Any, theta: Array) -> Array:
        """[theta, eta] (P + E,)."""
        encoder = self.encoder_net(net)

        def work(net: Any, theta: Array) -> tuple[list, dict]:
            eta = start_of(encoder, self.encoder_seed, theta.dtype)
            return [net.kernels.concatenate([theta, eta])], {}

        return net.run(work, theta)[0][0]

    # ---- adaptation ------------------------------------------------------------------

    def encode(self, net: Any, meta: Array, x: Array, y: Array) -> tuple[Features, Array, Array]:
        """The encoder's pass on the support sets, the shares, and phi (T, P)."""
        P, k = net.num_params, net.kernels
        net.check(meta[None, :P], x, y)
        inputs, s = self.inputs(net, x, y, meta), self.shares(net, y, meta)
        examples = Features.of(self.encoder_net(net), meta[None, P:], inputs)
        r = means(k, s, examples.X)
        finite = k.xp.isfinite(r).all()
        net.require(finite, lambda: refuse_non_finite(k.to_host(r), "support set: its encoding"))
        return examples, s, with_context(net, meta[None, :P], r)

    def adapted(self, net: Any, meta: Array, x: Array, y: Array) -> Array:
        """phi (T, P)."""
        return self.encode(net, meta, x, y)[-1]

    # ---- the meta-gradient -----------------------------------------------------------

    def task_gradients(self, net: Any, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """[dM_t/dtheta, dM_t/deta] of each task, (T, P + E)."""
        examples, s, phi = self.encode(net, meta, batch.x_support, batch.y_support)
        query = query_pass(net, phi, batch)
        deta, _ = examples.pullback(to_each(net.kernels, s, of_context(net, query.grad)))
        kept = {"phi": [meta[None, : net.num_params], phi], "query_grad": [query.grad]}
        gradient = net.kernels.concatenate([without_context(net, query.grad), deta], axis=1)
        return TaskGradients(query.loss, query.accuracy, gradient, kept if trace else {})

    # ---- its derivative along a direction: see meta_hessian.py -----------------------

    def task_products(self, net: Any, meta: Array, batch: Batch, v: Array) -> Array:
        """H_t v of each task, (T, P + E)."""
        k, P, reta = net.kernels, net.num_params, v[None, net.num_params :]
        examples, s, phi = self.encode(net, meta, batch.x_support, batch.y_support)
        query = net.primal(phi, batch.x_query, batch.y_query)
        _, at = examples.pullback(to_each(k, s, of_context(net, query.grad)))

        rh, rsaved = examples.body.r_forward(at, reta)
        rgrad = net.hvp(query, with_context(net, v[None, :P], means(k, s, rh)))
        rdh = to_each(k, s, of_context(net, rgrad))
        product = examples.body.r_backward(at, reta, rsaved, rdh)
        return k.concatenate([without_context(net, rgrad), product], axis=1)


# ---- the encoder's net, and its inputs -----------------------------------------------


@lru_cache(maxsize=16)
def encoder_of(kind: Any, sizes: tuple[int, ...], kernels: Any) -> Any:
    """The net of one size after another, a ReLU between two; its loss is unused."""
    layers: list = []
    for I, O in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [Linear(I, O), ReLU()]
    return kind(layers[:-1], MSE(), (sizes[0],), kernels)


def start_of(encoder: Any, seed: int, dtype: Any) -> Array:
    """eta (E,), to be read only: every check of a vector's length asks for it."""
    key = "start of an encoder", tuple(encoder.shapes.values()), seed, np.dtype(dtype)
    make = encoder.init
    return encoder.kernels.cached(key, lambda: encoder.kernels.arrays(make(seed, dtype))[0])


def target_size(net: Any) -> int:
    """D: the numbers of one target, or of a label as a unit vector."""
    outputs = net.output_shape(net.input_shape)
    return getattr(net.loss_function, "target_shape", tuple)(outputs)[0]


def joined(net: Any, x: Array, y: Array, meta: Array) -> Array:
    """[x, y] (T, N, F + D) in the precision of meta."""
    T, N, dtype = x.shape[0], x.shape[1], meta.real.dtype
    if y.dtype.kind in "iu":
        y = y[..., None] == net.kernels.xp.arange(target_size(net))
    parts = [x.reshape(T, N, -1).astype(dtype), y.astype(dtype)]
    return net.kernels.xp.concatenate(parts, axis=2)


def means(k: Any, s: Array, h: Array) -> Array:
    """r (T, C S) = s'h of shares s (T, N, C) and outputs h (T, N, S)."""
    return transposed_times(k, s, k.xp.ascontiguousarray(h)).reshape(len(h), -1)


def to_each(k: Any, s: Array, dr: Array) -> Array:
    """dh (T, N, S) = s dr, the adjoint of `means` on dr (T, C S)."""
    return times(k, s, k.xp.ascontiguousarray(dr.reshape(len(dr), s.shape[2], -1)))


# ---- the places of the context in the flat vector ------------------------------------


def context_blocks(net: Any) -> list[tuple[int, int]]:
    """(start, stop) of each run of context numbers in the flat vector.

    Raises ArgumentError where the net has none.
    """
    edges = np.diff(net.mask(("context",)).astype(np.int8), prepend=0, append=0)
    starts, stops = (np.flatnonzero(edges == edge).tolist() for edge in (1, -1))
    return list(zip(starts, stops, strict=True))


def with_context(net: Any, theta: Array, r: Array) -> Array:
    """phi (T, P): theta (1, P) with r (T, S) in the places of the context."""
    phi = net.kernels.empty((len(r), theta.shape[1]), np.result_type(theta.dtype, r.dtype))
    phi[:], first = theta, 0
    for start, stop in context_blocks(net):
        phi[:, start:stop] = r[:, first : first + stop - start]
        first += stop - start
    return phi


def of_context(net: Any, rows: Array) -> Array:
    """The context's entries (T, S) of rows (T, P)."""
    parts = [rows[:, start:stop] for start, stop in context_blocks(net)]
    return net.kernels.concatenate(parts, axis=1)


def without_context(net: Any, rows: Array) -> Array:
    """Rows (T, P) with 0 in the places of the context."""
    rows = rows.copy()
    for start, stop in context_blocks(net):
        rows[:, start:stop] = 0
    return rows
