"""Arithmetic on flat vectors on a CPU: the formulas are in reference.py.

Each number is read once and written once. Threads take blocks of the rows; for sums
over rows they take columns, and for sums along a row, rows. Operations are in the order
of the reference and none are fused, so the results have the reference's bits.
"""

import numpy as np

from refmaml.kernels.numba_runtime.compiled import compiled_on_one_thread
from refmaml.kernels.numba_runtime.inline_jit import inner
from refmaml.kernels.numba_runtime.threads import parallel_for
from refmaml.kernels.vector import reference
from refmaml.kernels.whole_net import vectors

__all__ = [
    "vector_step",
    "vector_scale",
    "vector_add_rows",
    "vector_move",
    "vector_proximal_step",
    "vector_adam_step",
    "vector_dot",
]

SERIAL_BELOW = 1 << 16  # numbers; with fewer, one thread is faster
BLOCK = 1 << 13  # numbers of a row that a thread computes at a time

# ---- compiled functions, for blocks lo .. hi of all rows -----------------------------
# Arguments: the arrays they fill, the arrays they read (one row may serve all),
# numbers.


@inner()
def extent(block, P):
    """(row, begin, end) of a block."""
    per_row = (P + BLOCK - 1) // BLOCK
    begin = block % per_row * BLOCK
    return block // per_row, begin, min(begin + BLOCK, P)


@inner()
def part(a, extent):
    """A block of an array."""
    t, begin, end = extent
    return a[t % len(a), begin:end]


def step(lo, hi, outs, a_s, rates_s, b_s):
    for block in range(lo, hi):
        at = extent(block, outs.shape[1])
        vectors.step(part(outs, at), part(a_s, at), part(rates_s, at), part(b_s, at))


def scale(lo, hi, outs, rates_s, b_s):
    for block in range(lo, hi):
        at = extent(block, outs.shape[1])
        vectors.multiply(part(outs, at), part(rates_s, at), part(b_s, at))


def move(lo, hi, outs, a_s, s_s, b_s):
    for block in range(lo, hi):
        at = extent(block, outs.shape[1])
        out, a, s, b = part(outs, at), part(a_s, at), s_s[at[0] % len(s_s), 0], part(b_s, at)
        for i in range(len(out)):
            out[i] = a[i] + (s * b[i] if s != 0 else abs(s))  # 0, and not -0


def proximal_step(lo, hi, outs, a_s, rates_s, g_s, center_s, strength):
    for block in range(lo, hi):
        at = extent(block, outs.shape[1])
        out, a, rates = part(outs, at), part(a_s, at), part(rates_s, at)
        g, center = part(g_s, at), part(center_s, at)
        for i in range(len(out)):
            out[i] = a[i] - rates[i] * (g[i] + strength * (a[i] - center[i]))


def adam_step(lo, hi, outs, v_s, a_s, rates_s, g_s, w_s, n_s, beta2, rest, eps):
    n = n_s[0, 0]
    for block in range(lo, hi):
        at = extent(block, outs.shape[1])
        out, v, a = part(outs, at), part(v_s, at), part(a_s, at)
        rates, g, w = part(rates_s, at), part(g_s, at), part(w_s, at)
        for i in range(len(out)):
            moment = beta2 * w[i] + rest * g[i] * g[i]
            v[i] = moment
            out[i] = a[i] - rates[i] * (g[i] / (np.sqrt(moment / n) + eps))


def run(function, outputs, inputs, *numbers):
    """The function on all blocks of all rows, in the precision of its first output."""
    (T, P), dtype = outputs[0].shape, outputs[0].dtype
    filled = [
        a if a.dtype == dtype and a.flags.carray else np.empty(a.shape, dtype) for a in outputs
    ]
    arrays = [*filled, *(np.require(a, dtype, "CW") for a in inputs)]
    types = ("int64", "int64", *["F[:,::1]"] * len(arrays), *["F"] * len(numbers))
    on_blocks = compiled_on_one_thread(function, types, dtype)
    serial = T * P < SERIAL_BELOW
    parallel_for(T * -(-P // BLOCK), lambda lo, hi: on_blocks(lo, hi, *arrays, *numbers), serial)
    for a, result in zip(outputs, filled, strict=True):
        if result is not a:
            a[...] = result


# ---- the kernels ---------------------------------------------------------------------


def vector_step(out, a, rates, b):
    """out = a - rates * b; out may be b."""
    run(step, [out], [a, rates, b])


def vector_scale(out, rates, b):
    """out = rates * b."""
    run(scale, [out], [rates, b])


def vector_move(out, a, s, b):
    """out = a + s b with a number s (T, 1) per row; a where s = 0, whatever b is.

    out may be a or b.
    """
    run(move, [out], [a, s, b])


def vector_proximal_step(out, a, rates, g, center, strength):
    """out = a - rates (g + strength (a - center)); out may be g."""
    run(proximal_step, [out], [a, rates, g, center], strength)


def vector_adam_step(out, v, a, rates, g, w, n, beta2, eps):
    """v = beta2 w + (1 - beta2) g g;  out = a - rates g / (sqrt(v / n) + eps).

    n (1, 1); v may be w.
    """
    run(adam_step, [out, v], [a, rates, g, w, n], beta2, 1 - beta2, eps)


def vector_add_rows(total, a):
    """total (1, P) += the rows of a (T, P), one after another."""

    def columns(lo, hi):
        out, add = total[0, lo:hi], np.add
        for row in a[:, lo:hi]:
            add(out, row, out)

    parallel_for(total.shape[1], columns, a.size < SERIAL_BELOW)


def vector_dot(out, a, b):
    """out (T, 1) = sum a b of each row."""

    def rows(lo, hi):
        reference.vector_dot(
            out[lo:hi], a[lo:hi] if len(a) > 1 else a, b[lo:hi] if len(b) > 1 else b
        )

    parallel_for(len(out), rows, len(out) * a.shape[1] < SERIAL_BELOW)
