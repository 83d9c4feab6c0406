"""A method's settings on a built-in case: the step size at which mistakes show.

At a tiny step size most wrong meta-gradients equal the right one to many digits. So
alpha |H| is CURVATURE, and for iMAML |H| / lambda is PROXIMAL.
"""

from dataclasses import replace

import numpy as np

from refmaml.errors import ArgumentError, expect
from refmaml.methods import CNP, ALPaCA, SolvedHead, table, table_entry
from refmaml.update_rules import Adagrad, Adam, Clip, RMSprop, Sign, UpdateRule

CURVATURE = 0.6  # alpha |H|
PROXIMAL = 0.3  # |H| / lambda: a hundred inner steps then solve the inner problem to rounding
NORMALIZED = (Adam, RMSprop, Adagrad, Sign)  # rules that divide the gradient by its size
HALVINGS = 6  # how often |H| / lambda is halved until the inner solve reaches rounding


def with_curvature(method, net, theta, batch):
    """The method with the inner step size CURVATURE / |H|, to 3 digits.

    Of several step sizes the largest is that, and the others keep their ratios to it.
    A method without a step size stays as it is, and so does one whose steps do not
    depend on the size of the gradient, as with an Adam inside."""
    if not hasattr(method, "inner_lr") or steps_have_their_own_size(method):
        return method
    alpha = method.inner_lr
    ratios = [a / max(alpha) for a in alpha] if isinstance(alpha, tuple) else [1]
    size = sharpness(net, theta, batch, adapting(method, net))
    lengths = tuple(float(f"{CURVATURE / size * ratio:.3g}") for ratio in ratios)
    return replace(method, inner_lr=lengths if isinstance(alpha, tuple) else lengths[0])


def steps_have_their_own_size(method):
    """Whether a step's length does not depend on the size of the gradient."""
    rule = method.rule
    while isinstance(rule, Clip):
        rule = rule.rule
    return isinstance(rule, NORMALIZED) or getattr(method, "optimizer", "sgd") == "adam"


def with_proximal_term(method, net, theta, batch):
    """iMAML with lambda = |H| / PROXIMAL, and solves that run down to rounding.

    Where the inner solve does not reach rounding, lambda is doubled. The solution does
    not depend on the update rule: plain gradient descent finds it.
    """
    size = sharpness(net, theta, batch, adapting(method, net))
    solved = table.entry_of(method).probed_with | {"rule": UpdateRule()}
    for halvings in range(HALVINGS):
        strength = float(f"{2**halvings * size / PROXIMAL:.3g}")
        found = replace(
            method, regularization=strength, inner_lr=float(f"{0.9 / strength:.3g}"), **solved
        )
        if found.solve(net, theta, batch.x_support, batch.y_support)[2].max() < 1e-12:
            break
    return found


def with_laplace_term(method, net, theta, batch):
    """LLAMA as with_curvature, with tau = 2 |H| and eta = 1.

    H + tau I is then positive definite, and log det(H + tau I) changes with phi_K.
    """
    method = with_curvature(method, net, theta, batch)
    size = sharpness(net, theta, batch, adapting(method, net))
    return replace(method, precision=float(f"{2 * size:.3g}"), weight=1.0)


# What the doctor makes of a method on a built-in case, where not with_curvature.
SETTINGS = {table_entry.IMPLICIT: with_proximal_term, table_entry.LAPLACE: with_laplace_term}


def sharpness(net, theta, batch, adapting, steps=10):
    """max over tasks of |H_f(theta)|, by power iteration.

    adapting   (P,), 1 for the parameters whose block of H counts, 0 for the others
    """
    primal = net.primal(theta[None], batch.x_support, batch.y_support)
    v = adapting * np.random.default_rng(0).standard_normal((len(batch), net.num_params))
    for _ in range(steps):
        size = np.sqrt((v * v).sum(axis=1, keepdims=True))
        v = adapting * net.hvp(primal, v / size)
    return float(np.sqrt((v * v).sum(axis=1)).max())


def adapting(method, net):
    """1 where a parameter adapts, 0 elsewhere, (P,)."""
    chosen = net.mask(method.adapts) if hasattr(method, "adapts") else np.ones(net.num_params, bool)
    frozen = getattr(method, "frozen", ())
    return (chosen & ~net.mask(frozen) if frozen else chosen).astype(float)


def fitting(method, net):
    """The method with those of its name patterns that select something in this net.

    Raises ArgumentError where none of `adapts` does.
    """
    changes = {}
    for field in ("adapts", "frozen"):
        wanted = getattr(method, field, ())
        kept = tuple(pattern for pattern in wanted if selects(net, pattern))
        expect(
            kept or not wanted or field == "frozen",
            "adapts",
            "patterns that select a parameter of this case",
            repr(wanted),
        )
        changes |= {field: kept} if kept != wanted else {}
    return replace(method, **changes) if changes else method


def selects(net, pattern):
    """Whether a pattern selects any parameter of the net."""
    try:
        return bool(net.mask((pattern,)).any())
    except ArgumentError:
        return False


def initial_meta(method, net, theta, rng):
    """theta and learned step sizes; each of these is scaled at random, so that no two
    agree."""
    meta = method.init(net, theta).copy()
    extra = len(meta) - net.num_params
    meta[net.num_params :] *= rng.uniform(0.6, 1.2, extra)
    if isinstance(method, SolvedHead | ALPaCA | CNP):  # some start at 0, or as the identity
        meta[net.num_params :] += rng.uniform(0.1, 0.3, extra)
    if hasattr(method, "spread"):  # matrices that start as the identity, and are symmetric
        meta[net.num_params :] += rng.uniform(-0.2, 0.2, extra)
    return meta
