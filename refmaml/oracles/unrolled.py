"""M(meta) itself, for every method, with the whole inner loop run in whatever arithmetic its argument has.

With a complex argument its imaginary part carries the exact derivative: no Hessian, no adjoint and no line of refmaml.methods is
involved, only forward and backward passes, which the rungs below have proven. Every function takes meta-parameters (B, M), one row for
each copy of one task, and returns M's value for each row (B,).
"""

import numpy as np


def inner_loop(net, phi, rates, x, y):
    """[phi_0, ..., phi_K] by phi_{k+1} = phi_k - A_k * grad f(phi_k), and nothing else."""
    phis = [phi]
    for A in rates:
        phis.append(phis[-1] - A * net.gradient(phis[-1], x, y))
    return phis


def fixed_rates(net, method):
    """A_0 .. A_{K-1} of a method at its own initial step sizes; none for a method that takes no steps."""
    return (
        [method.inner_lr * masked(net, method)] * method.inner_steps
        if hasattr(method, "inner_steps")
        else []
    )


def copies(a, B):
    """One task's array (1, ...) as B equal tasks, without copying."""
    return np.broadcast_to(a, (B, *a.shape[1:]))


def loss_after(net, task, phis, weights):
    """sum_k weights[k] g(phi_k) on the query set of one task, (B,)."""
    x, y = copies(task.x_query, len(phis[-1])), copies(task.y_query, len(phis[-1]))
    return sum(v * net.loss(phi, x, y) for v, phi in zip(weights, phis, strict=True) if v != 0)


def maml(net, method, task, W):
    """MAML and ANIL: fixed step sizes where `adapts` says and `frozen` does not."""
    A = method.inner_lr * masked(net, method)
    x, y = copies(task.x_support, len(W)), copies(task.y_support, len(W))
    phis = inner_loop(net, W, [A] * method.inner_steps, x, y)
    return loss_after(net, task, phis[-1:], [1])


def first_order(net, method, task, W):
    """First-order MAML and ANIL: the inner gradients are numbers, taken at Re W, that do not move with W."""
    A = method.inner_lr * masked(net, method)
    x, y = copies(task.x_support, len(W)), copies(task.y_support, len(W))
    real = inner_loop(net, W.real, [A] * method.inner_steps, x, y)
    return loss_after(net, task, [W + (real[-1] - real[0])], [1])


def erm(net, method, task, W):
    """No inner loop."""
    return loss_after(net, task, [W], [1])


def meta_sgd(net, method, task, meta):
    """meta = [theta, A]."""
    P = net.num_params
    x, y = copies(task.x_support, len(meta)), copies(task.y_support, len(meta))
    phis = inner_loop(net, meta[:, :P], [meta[:, P:]] * method.inner_steps, x, y)
    return loss_after(net, task, phis[-1:], [1])


def maml_plus_plus(net, method, task, meta):
    """meta = [theta, alpha for every layer, step by step]; a weighted loss after every step."""
    P, K, L = net.num_params, method.inner_steps, len(net.shapes)
    alphas = meta[:, P:].reshape(len(meta), K, L)
    rates = []
    for k in range(K):
        A = np.zeros((len(meta), P), meta.dtype)
        for l, part in enumerate(net.blocks):
            A[:, part] = alphas[:, k, l, None]
        rates.append(A * masked(net, method))
    x, y = copies(task.x_support, len(meta)), copies(task.y_support, len(meta))
    phis = inner_loop(net, meta[:, :P], rates, x, y)
    return loss_after(net, task, phis[1:], method.loss_weights or [1 / K] * K)


def cavia(net, method, task, W):
    """Theta stays, the context starts from 0 and moves."""
    context = masked(net, method)
    x, y = copies(task.x_support, len(W)), copies(task.y_support, len(W))
    phis = inner_loop(
        net, W * (1 - context), [method.inner_lr * context] * method.inner_steps, x, y
    )
    return loss_after(net, task, phis[-1:], [1])


def imaml(net, method, task, W, most=20000):
    """phi <- phi - a (grad f(phi) + lambda (phi - theta)) until neither part of phi moves any more: a solve to rounding."""
    moves, a = masked(net, method), method.inner_lr
    x, y = copies(task.x_support, len(W)), copies(task.y_support, len(W))
    phi = W
    for _ in range(most):
        new = phi - a * moves * (net.gradient(phi, x, y) + method.regularization * (phi - W))
        moved = max(relative_change(new.real, phi.real), relative_change(new.imag, phi.imag))
        phi = new
        if moved < 4 * np.finfo(float).eps:
            return loss_after(net, task, [phi], [1])
    raise ArithmeticError(
        f"the inner solve still moves by {moved:.1e} after {most} steps of size {a}"
    )


def reptile(net, method, meta, batch):
    """Reptile's direction by its definition: one task after another, one step after another, mean of theta - phi_K.

    Where the moment is carried, meta = (theta, v, n), and v counts as the average of the squares of k gradients, n = 1 - beta2^k.
    """
    P, total, before = net.num_params, np.zeros_like(meta), 0.0
    if method.moment == "carried":
        before = np.log1p(-meta[-1]) / np.log(method.beta2)
    for t in range(len(batch)):
        phi, v = (
            meta[:P].copy(),
            meta[P : 2 * P].copy() if method.moment == "carried" else np.zeros(P),
        )
        for k, places in enumerate(method.mini_batches(batch.x_support.shape[1])):
            g = net.gradient(
                phi[None], batch.x_support[t : t + 1, places], batch.y_support[t : t + 1, places]
            )[0]
            if method.optimizer == "adam":  # Kingma & Ba 2015, Algorithm 1, with beta1 = 0
                v = method.beta2 * v + (1 - method.beta2) * g**2
                g = g / (np.sqrt(v / (1 - method.beta2 ** (before + k + 1))) + method.eps)
            phi = phi - method.inner_lr * masked(net, method) * g
        end = (
            phi
            if method.moment == "fresh"
            else [*phi, *v, 1 - method.beta2 ** (before + method.inner_steps)]
        )
        total += meta - end
    return total / len(batch)


def relative_change(new, old):
    """max|new - old| / max|new|, 0 where both vanish."""
    size = np.abs(new).max()
    return np.abs(new - old).max() / size if size > 0 else 0.0


def masked(net, method):
    """1 where a parameter adapts, 0 elsewhere."""
    chosen = net.mask(method.adapts).astype(float)
    frozen = getattr(method, "frozen", ())
    return chosen * (1 - net.mask(frozen)) if frozen else chosen


BY_METHOD = {
    "MAML": maml,
    "ANIL": maml,
    "FirstOrderMAML": first_order,
    "FirstOrderANIL": first_order,
    "ERM": erm,
    "MetaSGD": meta_sgd,
    "MAMLPlusPlus": maml_plus_plus,
    "CAVIA": cavia,
    "IMAML": imaml,
}
