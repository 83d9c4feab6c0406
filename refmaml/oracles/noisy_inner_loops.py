"""Inner loops with noise: the expectation of the query loss, and three gradients of it.

    M(theta) = E g(phi_K),  phi_K from the start theta + sigma xi, or from mini-batches

pathwise   E lam_0, the adjoint recursion with the noise held fixed. It is exact where
           g(phi_K) is differentiable in theta for almost all noise and has no jump.
score      E g(phi_K) xi / sigma, for noise of the start: the derivative of its density.
           It asks nothing of g, needs no adjoint, and knows jumps.
enumerated the mean over all paths of mini-batches: the truth for finitely many paths.

A baseline b in (g - b) xi / sigma changes no expectation, since E xi = 0.
Sources: Williams 1992 (the score); Kingma & Welling 2014 (the pathwise form); Metz,
Maheswaranathan, Nixon, Freeman, Sohl-Dickstein 2019 (their variances in long loops).
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from refmaml.batch import Batch
from refmaml.errors import expect
from refmaml.methods.inner_loop_adjoint import adjoint, descend, query_pass

# ---- noise in the start --------------------------------------------------------------


class Runs(NamedTuple):
    """Inner loops from several starts on one task.

    values  g(phi_K) of each, (S,)
    slopes  lam_0 of each, (S, P): the derivative of the value in its start
    """

    values: np.ndarray
    slopes: np.ndarray


class Estimate(NamedTuple):
    """An expectation and the standard deviation of one draw of it, (P,) each."""

    mean: np.ndarray
    deviation: np.ndarray


class Gradients(NamedTuple):
    """M and the Estimates of dM/dtheta; `centred` is the score with baseline M."""

    value: float
    pathwise: Estimate
    score: Estimate
    centred: Estimate


def runs_from(net: Any, method: Any, starts: np.ndarray, task: Batch) -> Runs:
    """The Runs of a method from `starts` (S, P), side by side.

    method  one that differentiates its inner loop, such as MAML
    task    a batch with one task
    Raises ArgumentError for more tasks, NonFiniteError.
    """
    expect(len(task) == 1, "task", "a batch with one task", f"{len(task)}")
    _, rates = method.start(net, starts[0])
    copies = Batch.unchecked(*(np.repeat(a, len(starts), axis=0) for a in task.all_arrays))
    path = descend(net, method, starts, rates, copies.x_support, copies.y_support, method.kept)
    query = query_pass(net, path.phis[-1], copies)
    return Runs(query.loss, adjoint(net, method, path, rates, query.grad).lam[0])


def gradients(runs: Runs, xi: np.ndarray, sigma: float, weights: np.ndarray) -> Gradients:
    """M and its gradients from runs whose starts are theta + sigma xi.

    xi       the noise (S, P)
    weights  (S,): 1 / S for draws of a standard normal distribution; its density times
             the width of a cell for nodes of a quadrature
    """
    value = float(weights @ runs.values)
    score = runs.values[:, None] * xi / sigma
    centred = (runs.values - value)[:, None] * xi / sigma
    estimates = [estimate(rows, weights) for rows in (runs.slopes, score, centred)]
    return Gradients(value, *estimates)


def estimate(rows: np.ndarray, weights: np.ndarray) -> Estimate:
    """The mean and the standard deviation of rows (S, P)."""
    mean = weights @ rows
    return Estimate(mean, np.sqrt(weights @ (rows - mean) ** 2))


class Nodes(NamedTuple):
    """A quadrature for the normal distribution in one dimension.

    xi (S, 1), weights (S,); distance (S, 1): xi minus the centre, to full precision
    """

    xi: np.ndarray
    weights: np.ndarray
    distance: np.ndarray


def nodes_around(centre: float, cell: float = 0.02, least: float = -80.0) -> Nodes:
    """Nodes centre +- e^s, equidistant in s from `least` on: they crowd at the centre.

    The trapezoidal rule in s converges faster than any power of the cell for functions
    that are smooth on both sides of the centre, however steep they are there.
    """
    s = np.arange(least, np.log(12 + abs(centre)), cell)
    distance = np.concatenate([-np.exp(s)[::-1], np.exp(s)])
    xi = centre + distance
    density = np.exp(-(xi**2) / 2) / np.sqrt(2 * np.pi)
    return Nodes(xi[:, None], density * abs(distance) * cell, distance[:, None])


# ---- mini-batches --------------------------------------------------------------------


def paths_of(parts: list, steps: int) -> Iterator[tuple]:
    """All sequences of `steps` mini-batches out of `parts`; all are equally likely."""
    return product([np.asarray(part) for part in parts], repeat=steps)


def over_paths(net: Any, method: Any, meta: np.ndarray, batch: Batch, parts: list) -> tuple:
    """(M, dM/dmeta), the means over all sequences of mini-batches.

    parts  the places of the support examples in each mini-batch
    Each sequence is the method with its mini-batches held fixed.
    """
    losses, grads = [], []
    for path in paths_of(parts, method.inner_steps):
        fixed = replace(method, inner_batch=lambda k, examples, path=path: path[k])
        out = fixed.meta_gradient(net, meta, batch)
        losses.append(out.loss)
        grads.append(out.grad)
    return np.mean(losses), np.mean(grads, axis=0)


def quadratic_moments(
    A: np.ndarray, c: np.ndarray, theta: np.ndarray, alpha: float, K: int, B: np.ndarray, d: Any
) -> tuple[float, np.ndarray]:
    """(M, dM/dtheta) for mini-batches that are quadratics, by their moments.

    Batch b has the loss 1/2 (w - c_b)' A_b (w - c_b), A (n, P, P), c (n, P); the query
    loss is 1/2 (w - d)' B (w - d). A step is phi' = T_b phi + t_b with T_b = I - alpha
    A_b, t_b = alpha A_b c_b, so that m = E phi and S = E phi phi' follow linear
    recursions, and M = <B/2, S> - <B d, m> + d' B d / 2. Its adjoint runs backwards:

        m* <- mean_b T_b' (m* + 2 S* t_b)        S* <- mean_b T_b' S* T_b
    """
    T, t = np.eye(len(theta)) - alpha * A, alpha * np.einsum("bij,bj->bi", A, c)
    m, S = theta, np.outer(theta, theta)
    for _ in range(K):
        cross = np.einsum("bij,j,bk->ik", T, m, t) / len(T)
        S = np.einsum("bij,jk,blk->il", T, S, T) / len(T) + cross + cross.T
        S = S + np.einsum("bi,bj->ij", t, t) / len(T)
        m = (np.einsum("bij,j->bi", T, m) + t).mean(axis=0)
    of_m, of_S = -B @ d, B / 2
    value = (of_S * S).sum() + of_m @ m + d @ B @ d / 2
    for _ in range(K):
        of_m = np.einsum("bji,bj->bi", T, of_m + 2 * t @ of_S).mean(axis=0)
        of_S = np.einsum("bji,jk,bkl->il", T, of_S, T) / len(T)
    return float(value), of_m + 2 * of_S @ theta
