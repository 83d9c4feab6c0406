"""Small symmetric positive definite systems, one or more for each task.

    A = X'X + lambda I,  X (T, N, F),  lambda > 0         solve(V) = V A^-1

Rows are the unknowns' axis: V (T, C, F) has a right-hand side in each row. Where N < F
the identity of Woodbury (1950) needs a system of N unknowns only:

    V A^-1 = (V - V X' K^-1 X) / lambda,   K = X X' + lambda I  (N, N)

Proof: multiply by A from the right, with X A = K X:
(V A - V X' K^-1 K X) / lambda = V (A - X'X) / lambda = V.

The matrices have as many rows as a support set has examples, so the factorisation is
written out: its loop runs over columns, with all tasks side by side. The same bits come
out for any number of tasks at a time, and it is analytic (no conjugate), so that the
complex step runs through.
"""

from typing import Any, NamedTuple, Self

import numpy as np

from refmaml.layers.layer import Array

# ---- products of two matrices for each task, by the kernels of a linear layer --------


def times_transposed(k: Any, x: Array, w: Array) -> Array:
    """x w' (T, N, C) of x (T, N, F) and w (T, C, F): the outputs of a linear layer."""
    out = k.empty((len(x), x.shape[1], w.shape[1]), np.result_type(x.dtype, w.dtype))
    k.linear_forward(out, x, w)
    return out


def times(k: Any, dy: Array, w: Array) -> Array:
    """dy w (T, N, F) of dy (T, N, C) and w (T, C, F): its backward pass to inputs."""
    out = k.empty((len(dy), dy.shape[1], w.shape[2]), np.result_type(dy.dtype, w.dtype))
    k.linear_backward_x(out, dy, w)
    return out


def transposed_times(k: Any, dy: Array, x: Array) -> Array:
    """dy' x (T, C, F) of dy (T, N, C) and x (T, N, F): its backward pass to weights."""
    out = k.empty((len(x), dy.shape[2], x.shape[2]), np.result_type(dy.dtype, x.dtype))
    k.linear_backward_w(out, x, dy)
    return out


def transposed(k: Any, a: Array) -> Array:
    """a' of each task, in its own memory."""
    return k.xp.ascontiguousarray(a.swapaxes(1, 2))


def identity(k: Any, n: int, dtype: Any) -> Array:
    """I (n, n)."""
    place = k.xp.arange(n)
    return (place[:, None] == place).astype(dtype)


def columns(k: Any, *vectors: Array) -> Array:
    """(T, n) of n vectors (T,)."""
    return k.concatenate([a[:, None] for a in vectors], axis=1)


def inner_product(a: Array, b: Array) -> Array:
    """<a, b> of each task, (T,), of arrays (T, ...)."""
    return (a * b).reshape(len(a), -1).sum(axis=1)


# ---- Cholesky ------------------------------------------------------------------------


def cholesky(xp: Any, A: Array) -> Array:
    """The lower triangle L (T, n, n) with L L' = A, for symmetric A (T, n, n).

    Column j, from the diagonal down: c = A[j:, j] - L[j:, :j] L[j, :j]', L[j:, j] = c /
    sqrt(c[0]). Not finite where A is not positive definite.
    """
    L = xp.zeros(A.shape, A.dtype)
    for j in range(A.shape[1]):
        c = A[:, j:, j] - (L[:, j:, :j] * L[:, j : j + 1, :j]).sum(axis=2)
        L[:, j:, j] = c / xp.sqrt(c[:, :1])
    return L


def substitute(L: Array, b: Array) -> Array:
    """z (T, C, n) with z L L' = b, row by row: y L' = b forward, then z L = y back."""
    z = b.astype(np.result_type(b.dtype, L.dtype))
    columns = range(L.shape[1])
    for j in columns:
        below = (z[..., :j] * L[:, None, j, :j]).sum(axis=2)
        z[..., j] = (z[..., j] - below) / L[:, None, j, j]
    for j in reversed(columns):
        above = (z[..., j + 1 :] * L[:, None, j + 1 :, j]).sum(axis=2)
        z[..., j] = (z[..., j] - above) / L[:, None, j, j]
    return z


class Ridge(NamedTuple):
    """A = X'X + lambda I, factorised.

    x         (T, N, F)
    strength  lambda > 0, one for all systems
    L         the factor of X X' + lambda I (T, N, N) if N < F, else of A (T, F, F)
    """

    x: Array
    strength: Array
    L: Array

    @classmethod
    def of(cls, k: Any, x: Array, strength: Array) -> Self:
        """The factorised system of X (T, N, F) and lambda."""
        N, F = x.shape[1:]
        gram = times_transposed(k, x, x) if N < F else transposed_times(k, x, x)
        damped = gram + strength * identity(k, min(N, F), x.real.dtype)
        return cls(x, strength, cholesky(k.xp, damped))

    @property
    def woodbury(self) -> bool:
        """Whether the factor is that of the (N, N) matrix."""
        return self.x.shape[1] < self.x.shape[2]

    def solve(self, k: Any, v: Array) -> Array:
        """V A^-1 (T, C, F) of V (T, C, F)."""
        if not self.woodbury:
            return substitute(self.L, v)
        q = substitute(self.L, times_transposed(k, v, self.x))  # V X' K^-1
        return (v - times(k, q, self.x)) / self.strength

    def fit(self, k: Any, y: Array) -> tuple[Array, Array]:
        """W = Y'X A^-1 (T, C, F) and R = Y - X W' (T, N, C) of Y (T, N, C).

        With fewer examples than features W = B'X and R = lambda B with B = K^-1 Y: no
        difference of two nearly equal numbers.
        """
        if not self.woodbury:
            w = substitute(self.L, transposed_times(k, y, self.x))
            return w, y - times_transposed(k, self.x, w)
        b = substitute(self.L, transposed(k, y))
        return times(k, b, self.x), self.strength * transposed(k, b)
