"""What the kernels on flat vectors compute on random inputs."""

import numpy as np

from refmaml.oracles.tolerance import tolerance

P_LARGE = 70_001


def vectors_passes(k, dtype, tasks=3, P=P_LARGE):
    """{name: result} of all kernels on vectors but the sums over rows.

    Each kernel runs with a row of `a` and of the step sizes for each task ("own"), and
    with a row that the tasks share ("shared").
    """
    rng = np.random.default_rng(0)
    a, b, rates = (rng.standard_normal((tasks, P)).astype(dtype) for _ in range(3))
    out = {}
    for name, a_, rates_ in (("own", a, rates), ("shared", a[:1], rates[:1])):
        results = {
            **steps(k, a_, b, rates_, rates),
            **moves(k, a_, b, a),
            **adam_steps(k, a_, b, rates_),
        }
        out |= {f"{name} {what}": value for what, value in results.items()}
    return out


def steps(k, a, b, rates, own_rates):
    """Gradient steps, products with step sizes, and a sum of rows."""
    stepped, scaled, pulled = (k.empty(b.shape, b.dtype) for _ in range(3))
    total, in_place = own_rates[:1].copy(), b.copy()
    k.vector_step(stepped, a, rates, b)
    k.vector_scale(scaled, rates, b)
    k.vector_add_rows(total, b)
    k.vector_proximal_step(pulled, b, rates, own_rates, a, 0.7)
    k.vector_step(in_place, a, rates, in_place)
    return {
        "step": stepped,
        "scale": scaled,
        "sum": total,
        "proximal": pulled,
        "in place": in_place,
    }


def moves(k, a, b, own_a):
    """a + s b with a number s per task, into a new array and in place.

    Where s is 0, b is infinite and must not be read.
    """
    s = np.array([[0.3], [0], [-2]], b.dtype)
    moved, moved_b, moved_a = k.empty(b.shape, b.dtype), b.copy(), own_a.copy()
    k.vector_move(moved, a, s, np.where(s == 0, np.inf, b).astype(b.dtype))
    k.vector_move(moved_b, a, s, moved_b)
    k.vector_move(moved_a, moved_a, s, own_a)
    return {"move": moved, "move in b": moved_b, "move in a": moved_a}


def adam_steps(k, a, b, rates):
    """A step of Adam: its moment in a new array, and in place."""
    adapted, moment, second = (k.empty(b.shape, b.dtype) for _ in range(3))
    correction, in_moment = np.full((1, 1), 0.3, b.dtype), b * b
    k.vector_adam_step(adapted, moment, a, rates, b, rates * rates, correction, 0.9, 1e-3)
    k.vector_adam_step(second, in_moment, a, rates, b, in_moment, correction, 0.9, 1e-3)
    return {
        "adam": adapted,
        "moment": moment,
        "adam in place": second,
        "moment in place": in_moment,
    }


def dots(k, dtype, tasks=3, P=P_LARGE):
    """Sums over rows, with a row per task and a shared row.

    {name: (values, exact values, the size that rounding is relative to)}
    """
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((tasks, P)).astype(dtype) for _ in range(2))
    out = {}
    for name, a_ in (("own", a), ("shared", a[:1])):
        k.vector_dot(total := k.empty((tasks, 1), dtype), a_, b)
        terms = a_.astype(np.longdouble) * b
        out[name] = total[:, 0], terms.sum(axis=1), np.sqrt((terms**2).sum(axis=1))
    return out


def worst_dot(k, dtype, **sizes):
    """The largest error of a sum over a row, as a fraction of its tolerance.

    Rounding affects P terms and P partial sums.
    """
    P = sizes.get("P", P_LARGE)
    return max(
        float((abs(value - exact) / size).max())
        for value, exact, size in dots(k, dtype, **sizes).values()
    ) / tolerance(dtype, P)


def same_bits_of_a_sum_beside_other_rows(k, dtype, P):
    """Asserts that a row's sum has the same bits alone and beside other rows."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((3, P)).astype(dtype) for _ in range(2))
    k.vector_dot(together := k.empty((3, 1), dtype), a, b)
    for t in range(3):
        k.vector_dot(alone := k.empty((1, 1), dtype), a[t : t + 1], b[t : t + 1])
        assert alone[0] == together[t]
