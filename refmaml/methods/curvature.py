"""Learned matrices between the gradient and the update rule, one for each axis.

An array of parameters is an array G of axes n = 1, 2, ...: outputs, inputs, and the
taps of a filter as one axis. Every axis has a matrix M_n:

    P G = G x_1 M_1 x_2 M_2 ...         (G x_n M)[..i..] = sum_j M[i, j] G[..j..]

which is M_1 G M_2' for a matrix G. P is linear, so that its adjoint has the transposed
matrices. With D, the adjoint of P G,

    P' D = D x_1 M_1' x_2 M_2' ...      dM_n[i, j] = <D at i, (G x_m M_m, m != n) at j>

the inner product running over all axes but n.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np

from refmaml.layers.layer import Array
from refmaml.update_rules.rule import Pullback, State, UpdateRule

AXES = ("outputs", "inputs", "taps")


class Block(NamedTuple):
    """An array of the flat vector that has matrices.

    part    its slice of the flat vector
    axes    its extents, the taps of a filter as one of them
    places  the slice of each axis's matrix in the vector of all matrices
    """

    part: slice
    axes: tuple[int, ...]
    places: tuple[slice, ...]


def axes_of(shape: tuple) -> tuple[int, ...]:
    """(O,), (O, I), or (O, I, taps) where a filter has more than one tap."""
    taps = prod(shape[2:])
    return (*shape[:2], taps) if taps > 1 else tuple(shape[:2])


def blocks_of(net: Any, adapts: tuple, frozen: tuple) -> list[Block]:
    """The arrays of which some number adapts; a net without names is one vector."""
    mask = net.mask(adapts)
    mask = mask & ~net.mask(frozen) if frozen else mask
    shapes = getattr(net, "shapes", {}).values() or [(p.stop - p.start,) for p in net.blocks]
    found, start = [], 0
    for part, shape in zip(net.blocks, shapes, strict=True):
        if mask[part].any():
            axes, places = axes_of(shape), []
            for n in axes:
                places.append(slice(start, start + n * n))
                start += n * n
            found.append(Block(part, axes, tuple(places)))
    return found


def identities(blocks: list[Block]) -> np.ndarray:
    """The vector of all matrices, each the identity."""
    return np.concatenate([np.eye(n).ravel() for block in blocks for n in block.axes])


def along(M: Array, G: Array, axes: tuple[int, ...], n: int) -> Array:
    """G x_n M for rows G (T, prod(axes))."""
    return (M @ G.reshape(len(G), prod(axes[:n]), axes[n], -1)).reshape(G.shape)


def pairs(xp: Any, D: Array, G: Array, axes: tuple[int, ...], n: int) -> Array:
    """<D at i, G at j> of axis n, rows (T, extent^2)."""
    shape = len(D), prod(axes[:n]), axes[n], -1
    G = xp.broadcast_to(G, D.shape).reshape(shape)
    return (D.reshape(shape) @ G.swapaxes(2, 3)).sum(axis=1).reshape(len(D), -1)


@dataclass(frozen=True, eq=False)
class Curvature(UpdateRule):
    """The direction of `rule` for the gradient P g.

    blocks     the arrays that have matrices; all others have P = 1
    matrices   the vector of all matrices (M,)
    collected  a list: each pullback appends the adjoint of the matrices in its step,
               (T, M)
    """

    blocks: list[Block]
    matrices: Array
    rule: UpdateRule = field(default_factory=UpdateRule)
    collected: list = field(default_factory=list)
    plain = False

    def of_block(self, block: Block, turned: bool = False) -> Iterator[tuple[int, Array]]:
        """Pairs (n, M_n) of a block, or (n, M_n')."""
        for n, (extent, place) in enumerate(zip(block.axes, block.places, strict=True)):
            M = self.matrices[place].reshape(extent, extent)
            yield n, M.swapaxes(0, 1) if turned else M

    def product(self, net: Any, g: Array, turned: bool = False) -> Array:
        """P g, or P' g, of rows g (T, P)."""
        out = g.astype(np.result_type(g.dtype, self.matrices.dtype))
        for block in self.blocks:
            G = out[:, block.part]
            for n, M in self.of_block(block, turned):
                G = along(M, G, block.axes, n)
            out[:, block.part] = G
        return out

    def of_matrices(self, net: Any, D: Array, g: Array) -> Array:
        """The adjoint of the matrices (T, M) from D (T, P), that of P g."""
        xp, found = net.kernels.xp, []
        for block in self.blocks:
            for n, _ in self.of_block(block):
                G = g[:, block.part]
                for m, M in self.of_block(block):
                    G = G if m == n else along(M, G, block.axes, m)
                found.append(pairs(xp, D[:, block.part], G, block.axes, n))
        return net.kernels.concatenate(found, axis=1)

    def init(self, phi: Array) -> State:
        return self.rule.init(phi)

    def factors(self, t: int) -> tuple:
        return self.rule.factors(t)

    def direction(
        self, net: Any, phi: Array, g: Array, state: State, factors: tuple
    ) -> tuple[Array, State]:
        return self.rule.direction(net, phi, self.product(net, g), state, factors)

    def pullback(
        self, net: Any, dd: Array, dstate: State, phi: Array, g: Array, state: State,
        factors: tuple,
    ) -> Pullback:  # fmt: skip
        turned = self.product(net, g)
        back = self.rule.pullback(net, dd, dstate, phi, turned, state, factors)
        self.collected.append(self.of_matrices(net, back.grad, g))
        return back._replace(grad=self.product(net, back.grad, turned=True))

    def hypergradients(
        self, net: Any, dd: Array, dstate: State, phi: Array, g: Array, state: State, t: int
    ) -> dict[str, Array]:
        turned = self.product(net, g)
        return self.rule.hypergradients(net, dd, dstate, phi, turned, state, t)
