"""What methods with K inner gradient steps share: step sizes, adaptation, the start."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refmaml.arguments import check_not_negative
from refmaml.errors import expect
from refmaml.layers.layer import Array
from refmaml.methods.adapt import adapt
from refmaml.methods.fields import check_step_size, check_steps
from refmaml.methods.inner_loop_adjoint import descend, step_sizes
from refmaml.methods.meta_gradient import meta_gradient
from refmaml.model import Net
from refmaml.update_rules.rule import UpdateRule


@dataclass(frozen=True)
class InnerLoop:
    """phi_{k+1} = phi_k - A_k * grad f(phi_k), phi_0 = theta.

    Here A_k = alpha where a parameter adapts, 0 elsewhere.

    inner_lr     alpha > 0, or a list with one for each step
    inner_steps  K >= 1
    adapts       which parameters take inner steps: names, wildcards, layer classes,
                 "head", "body" (see Parameters.mask)
    frozen       which of those take none after all; they are still meta-learned.
                 MAML's own code: ("BatchNorm2d",)
    rule         the update rule (refmaml.update_rules) that makes a direction of the
                 gradient of the parameters that adapt, e.g. SGD(momentum=0.9)
    anchor       strength of a term (anchor/2) |phi - phi_0|^2 in the inner loss
    inner_batch  examples in a mini-batch; or a function (k, examples) -> the places
                 that step k = 0, 1, ... sees; None: the whole support set in each step
    order_seed   seed of the order in which mini-batches go through the support set.
                 All tasks use the same order, so each task's examples should be
                 shuffled (FewShot.sample's support_order="shuffled"): class by class,
                 the same labels come last in every task, and theta leans towards them
    A method adds `task_gradients`, and changes `init` and `start` where it learns more
    than theta or starts elsewhere.
    """

    inner_lr: Any
    inner_steps: int = 1
    adapts: tuple = ("*",)
    frozen: tuple = ()
    rule: UpdateRule = field(default_factory=UpdateRule, kw_only=True)
    anchor: float = field(default=0.0, kw_only=True)
    inner_batch: Any = field(default=None, kw_only=True)
    order_seed: int = field(default=0, kw_only=True)
    data_independent = True  # which operations run depends on shapes alone
    meta_gradient = meta_gradient
    adapt = adapt

    def __post_init__(self) -> None:
        check_steps(inner_steps=self.inner_steps)
        object.__setattr__(self, "inner_lr", check_step_size(self.inner_lr, self.inner_steps))
        check_not_negative(anchor=self.anchor)
        given = self.inner_batch
        check_steps(inner_batch=1 if given is None or callable(given) else given)
        known = isinstance(self.rule, UpdateRule)
        expect(known, "rule", "an update rule, such as rm.SGD(momentum=0.9)", repr(self.rule))

    @property
    def step_lengths(self) -> tuple:
        """alpha of each step."""
        alpha = self.inner_lr
        return alpha if isinstance(alpha, tuple) else (alpha,) * self.inner_steps

    def init(self, net: Net, theta: Array) -> Array:
        """The meta-parameters (M,): theta itself."""
        return theta

    def start(self, net: Net, meta: Array) -> tuple[Array, list[Array]]:
        """phi_0 (1, P), shared by all tasks, and [A_0, ..., A_{K-1}], each (P,)."""
        vectors = {
            alpha: step_sizes(net, alpha, self.adapts, self.frozen, meta.dtype)
            for alpha in set(self.step_lengths)
        }
        return meta[None], [vectors[alpha] for alpha in self.step_lengths]

    def adapting(self, net: Net, like: Array) -> Array:
        """1 where a parameter adapts, 0 elsewhere, (P,), in the precision of `like`."""
        return step_sizes(net, 1, self.adapts, self.frozen, like.real.dtype)

    def on_adapting(self, net: Net, a: Array) -> Array:
        """a (T, P), 0 where a parameter does not adapt; a plain step needs no zeros."""
        everything = self.adapts == ("*",) and not self.frozen
        return a if self.rule.plain or everything else self.adapting(net, a) * a

    def inner_gradient(self, net: Net, grad: Array, phi: Array, start: Array) -> Array:
        """What the rule takes: grad f + anchor (phi - phi_0), on what adapts."""
        pulled = grad + self.anchor * (phi - start) if self.anchor else grad
        return self.on_adapting(net, pulled)

    def support_sets(self, net: Net, x: Array, y: Array) -> list[tuple[Array, Array]]:
        """The support examples (x, y) of each step."""
        return [(x[:, places], y[:, places]) for places in self.places(net, x.shape[1])]

    def places(self, net: Net, examples: int) -> list:
        """Where the mini-batches are in the support set: the same in all meta-steps."""
        if self.inner_batch is None:
            return [slice(None)] * self.inner_steps
        key = "mini-batches", examples, self.inner_batch, self.inner_steps, self.order_seed
        return net.kernels.cached(key, lambda: net.kernels.arrays(*self.mini_batches(examples)))

    def mini_batches(self, examples: int) -> list[np.ndarray]:
        """The places that each step sees.

        They are shuffled, dealt out, and shuffled again when all are used; or those of
        the function `inner_batch`.
        """
        if callable(self.inner_batch):
            return [places_of(self.inner_batch(k, examples), examples, k)
                    for k in range(self.inner_steps)]  # fmt: skip
        size = self.inner_batch or examples
        wanted = f"at most the {examples} examples of a support set"
        expect(size <= examples, "inner_batch", wanted, repr(size))
        if size == examples:
            return [np.arange(examples)] * self.inner_steps
        rng, deck = np.random.default_rng(self.order_seed), np.empty(0, int)
        while len(deck) < self.inner_steps * size:
            deck = np.concatenate([deck, rng.permutation(examples)])
        return [deck[k * size : (k + 1) * size] for k in range(self.inner_steps)]

    def adapted(self, net: Net, meta: Array, x: Array, y: Array) -> Array:
        """phi_K (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...)."""
        phi, rates = self.start(net, meta)
        return descend(net, self, phi, rates, x, y, keep="last").phis[-1]


def places_of(given: Any, examples: int, k: int) -> np.ndarray:
    """The places of step k as integers, checked."""
    places = np.asarray(given)
    known = places.ndim == 1 and places.size > 0 and places.dtype.kind in "iu"
    fits = known and places.min() >= 0 and places.max() < examples
    wanted = f"places in the support set, integers from 0 to {examples - 1}, for step {k}"
    expect(fits, "inner_batch", wanted, lambda: repr(given)[:80])
    return places


@dataclass(frozen=True)
class DifferentiatedLoop(InnerLoop):
    """An inner loop that the adjoint recursion differentiates.

    recompute   compute each pass a second time when the adjoint needs it, instead of
                storing the activations of all K steps: the same bits, one more forward
                and backward pass a step, and memory that grows by phi_k only.
                Source: Chen, Xu, Zhang, Guestrin 2016
    """

    recompute: bool = False

    @property
    def kept(self) -> str:
        """What `descend` keeps for the adjoint."""
        return "phis" if self.recompute else "passes"
