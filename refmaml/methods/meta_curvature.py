"""Meta-Curvature: MAML that learns matrices for its inner gradients."""

from dataclasses import dataclass, field, replace

import numpy as np

from refmaml.arguments import check_integer, check_not_negative
from refmaml.batch import Batch
from refmaml.layers.layer import Array
from refmaml.methods.curvature import AXES, Curvature, blocks_of, identities
from refmaml.methods.inner_loop import DifferentiatedLoop
from refmaml.methods.inner_loop_adjoint import adjoint, collect_trace, descend, query_pass
from refmaml.methods.meta_gradient import TaskGradients
from refmaml.model import Net


@dataclass(frozen=True)
class MetaCurvature(DifferentiatedLoop):
    """phi_{k+1} = phi_k - alpha P grad f(phi_k), P a learned matrix for each axis of
    each array: M_o G M_i' for the gradient G (O, I) of a Linear layer;
    lam_k = lam_{k+1} - alpha H_f(phi_k) P' lam_{k+1},
    dM_o = sum_k -alpha lam_{k+1} M_i G_k',  dM_i = sum_k -alpha lam_{k+1}' M_o G_k.

    Filters have a third matrix, for their taps; vectors such as biases have one.
    curvature.py has the formulas for any number of axes. With `rule`, the rule takes
    P grad f in place of the gradient.
    inner_lr (alpha), inner_steps (K), adapts, frozen, rule, anchor, inner_batch,
    recompute: see inner_loop.py. Arrays that do not adapt have no matrices. A matrix
    for the inputs of a Linear layer with I inputs has I^2 numbers.
    spread  standard deviation of numbers that are added to the matrices at the start;
            0: they start as the identity, as in the paper
    seed    of these numbers
    Meta-parameters: [theta, matrices], array by array in the net's order, and for each
    M_o, M_i and that of the taps. Raises ArgumentError, NonFiniteError.
    Source: Park & Oliva 2019, eq. 7-10.
    """

    spread: float = field(default=0.0, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    data_independent = False  # its products with matrices cannot be recorded

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative(spread=self.spread)
        check_integer("seed", self.seed, 0)

    def init(self, net: Net, theta: Array) -> Array:
        """[theta, matrices]."""

        def work(net: Net, theta: Array) -> tuple[list, dict]:
            start = identities(blocks_of(net, self.adapts, self.frozen))
            if self.spread:
                rng = np.random.default_rng(self.seed)
                start = start + self.spread * rng.standard_normal(len(start))
            (start,) = net.kernels.arrays(start.astype(theta.dtype))
            return [net.kernels.concatenate([theta, start])], {}

        return net.run(work, theta)[0][0]

    def start(self, net: Net, meta: Array) -> tuple[Array, list[Array]]:
        """theta (1, P), and alpha on the parameters that adapt, for each step."""
        return super().start(net, meta[: net.num_params])

    def matrix_shapes(self, net: Net) -> dict[str, tuple]:
        """{"curvature.0.weight.outputs": (n, n), ...} of the matrices, in their order.

        The axes are outputs, inputs and taps.
        """
        names = list(getattr(net, "shapes", {})) or ["w"] * len(net.blocks)
        places = dict(zip((part.start for part in net.blocks), names, strict=True))
        return {
            f"curvature.{places[block.part.start]}.{axis}": (n, n)
            for block in blocks_of(net, self.adapts, self.frozen)
            for axis, n in zip(AXES, block.axes, strict=False)
        }

    def curvature(self, net: Net, meta: Array) -> Curvature:
        """The rule with the matrices of meta in front of it."""
        blocks = blocks_of(net, self.adapts, self.frozen)
        return Curvature(blocks, meta[net.num_params :], self.rule)

    def adapted(self, net: Net, meta: Array, x: Array, y: Array) -> Array:
        """phi_K (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...)."""
        phi, rates = self.start(net, meta)
        loop = replace(self, rule=self.curvature(net, meta))
        return descend(net, loop, phi, rates, x, y, "last").phis[-1]

    def task_gradients(self, net: Net, meta: Array, batch: Batch, trace: bool) -> TaskGradients:
        """[dM_t/dtheta, dM_t/d(matrices)] for each task."""
        rule, (phi, rates) = self.curvature(net, meta), self.start(net, meta)
        loop = replace(self, rule=rule)
        path = descend(net, loop, phi, rates, batch.x_support, batch.y_support, self.kept)
        query = query_pass(net, path.phis[-1], batch)
        back = adjoint(net, loop, path, rates, query.grad, keep=trace)
        gradient = net.kernels.concatenate([back.lam[0], sum(rule.collected)], axis=1)
        kept = collect_trace(trace, path, back)
        return TaskGradients(query.loss, query.accuracy, gradient, kept)
