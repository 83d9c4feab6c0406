"""Reptile: walk towards the parameters that a few steps of ordinary training end at; nothing is differentiated twice."""
from dataclasses import dataclass

import numpy as np

from refmaml.errors import expect
from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.inner_loop import InnerLoop
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.methods.recursion import query


@dataclass(frozen=True)
class Reptile(InnerLoop):
    """"dM/dtheta" = theta - phi_K, phi_K after K steps of SGD or Adam on mini-batches of the support set.

    theta <- theta - epsilon mean_t (theta - phi_K) is the paper's theta <- theta + epsilon mean_t (phi_K - theta).

    inner_lr (alpha), inner_steps (K), adapts, frozen: see InnerLoop
    optimizer     "sgd", or "adam" with beta1 = 0 as in the paper: phi <- phi - alpha g / (sqrt(v / (1 - beta2^k)) + eps)
    inner_batch   examples in a mini-batch; None: the whole support set each step
    beta2, eps    of Adam. Its second moment starts at 0 in every task (the authors' code carries it from task to task)
    order_seed    draws the order in which mini-batches go through the support set's places; every task uses the same order,
                  which loses nothing where the examples at those places are drawn at random
    Source: Nichol, Achiam, Schulman 2018, Algorithms 1 and 2, section 6.2 for Adam.
    """
    inner_steps: int = 5
    optimizer: str = "sgd"
    inner_batch: int | None = None
    beta2: float = 0.999
    eps: float = 1e-8
    order_seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_positive(eps=self.eps)
        check_steps(inner_batch=1 if self.inner_batch is None else self.inner_batch)
        expect(self.optimizer in ("sgd", "adam"), "optimizer", "'sgd' or 'adam'", repr(self.optimizer))
        expect(0 <= self.beta2 < 1, "beta2", "a number in [0, 1)", repr(self.beta2))

    @property
    def replayable(self):
        """Mini-batches are dealt out on the host and taken over in every step."""
        return self.inner_batch is None

    def mini_batches(self, examples):
        """The places of the support set that each inner step sees: shuffled, dealt out, shuffled again when used up."""
        size = self.inner_batch or examples
        expect(size <= examples, "inner_batch", f"at most the {examples} examples of a support set", repr(size))
        if size == examples:
            return [np.arange(examples)] * self.inner_steps
        rng, deck = np.random.default_rng(self.order_seed), np.empty(0, int)
        while len(deck) < self.inner_steps * size:
            deck = np.concatenate([deck, rng.permutation(examples)])
        return [deck[k * size:(k + 1) * size] for k in range(self.inner_steps)]

    def descend(self, net, theta, x, y, trace=False):
        """phi_0 .. phi_K, each (1 or T, P); without trace, phi_K alone."""
        phi, rates = self.start(net, theta)
        phis, v, order = [phi], 0, self.mini_batches(x.shape[1])
        order = [slice(None)] * len(order) if self.inner_batch is None else net.kernels.bring(*order)
        for k, (A, places) in enumerate(zip(rates, order, strict=True)):
            primal = net.primal(phis[-1], x[:, places], y[:, places], keep=False)
            net.require_finite(primal, phis[-1], x[:, places], f"support set, inner step {k}")
            step = g = primal.grad
            if self.optimizer == "adam":
                v = self.beta2 * v + (1 - self.beta2) * g * g
                step = g / (net.kernels.xp.sqrt(v / (1 - self.beta2 ** (k + 1))) + self.eps)
            phis = [*(phis if trace else []), phis[-1] - A * step]
        return phis

    def adapted(self, net, theta, x, y):
        """phi_K (T, P)."""
        return self.descend(net, theta, x, y)[-1]

    def task_gradients(self, net, theta, batch, trace):
        """theta - phi_K for each task, (T, P); the query set only measures loss and accuracy."""
        phis = self.descend(net, theta, batch.x_support, batch.y_support, trace)
        after = query(net, phis[-1], batch)
        return TaskGradients(after.loss, after.accuracy, theta - phis[-1], {"phi": phis} if trace else {})
