"""What methods with K inner gradient steps share: step sizes, adaptation, the start."""

from dataclasses import dataclass

from refmaml.layers.layer import Array
from refmaml.methods.adapt import adapt
from refmaml.methods.fields import check_positive, check_steps
from refmaml.methods.inner_loop_adjoint import descend, step_sizes
from refmaml.methods.meta_gradient import meta_gradient
from refmaml.model import Net


@dataclass(frozen=True)
class InnerLoop:
    """phi_{k+1} = phi_k - A_k * grad f(phi_k), phi_0 = theta.

    Here A_k = alpha where a parameter adapts, 0 elsewhere.

    inner_lr     alpha > 0
    inner_steps  K >= 1
    adapts       which parameters take inner steps: names, wildcards, layer classes,
                 "head", "body" (see Parameters.mask)
    frozen       which of those take none after all; they are still meta-learned.
                 MAML's own code: ("BatchNorm2d",)
    A method adds `task_gradients`, and changes `init` and `start` where it learns more
    than theta or starts elsewhere.
    """

    inner_lr: float
    inner_steps: int = 1
    adapts: tuple = ("*",)
    frozen: tuple = ()
    data_independent = True  # which operations run depends on shapes alone
    meta_gradient = meta_gradient
    adapt = adapt

    def __post_init__(self) -> None:
        check_positive(inner_lr=self.inner_lr)
        check_steps(inner_steps=self.inner_steps)

    def init(self, net: Net, theta: Array) -> Array:
        """The meta-parameters (M,): theta itself."""
        return theta

    def start(self, net: Net, meta: Array) -> tuple[Array, list[Array]]:
        """phi_0 (1, P), shared by all tasks, and [A_0, ..., A_{K-1}], each (P,)."""
        A = step_sizes(net, self.inner_lr, self.adapts, self.frozen, meta.dtype)
        return meta[None], [A] * self.inner_steps

    def adapting(self, net: Net, like: Array) -> Array:
        """1 where a parameter adapts, 0 elsewhere, (P,), in the precision of `like`."""
        return step_sizes(net, 1, self.adapts, self.frozen, like.real.dtype)

    def adapted(self, net: Net, meta: Array, x: Array, y: Array) -> Array:
        """phi_K (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...)."""
        phi, rates = self.start(net, meta)
        return descend(net, phi, rates, x, y, keep="last")[0][-1]


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
