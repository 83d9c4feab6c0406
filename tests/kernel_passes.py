"""Everything that a kernel set computes for a layer, a loss or flat vectors, on random
inputs: what the tests of fast kernels share."""

import numpy as np

from refmaml import kernels
from refmaml.layers import (
    BatchNorm2d,
    Conv2d,
    CrossEntropy,
    GroupNorm,
    LayerNorm,
    Linear,
    MaxPool2d,
    ReLU,
)
from refmaml.oracles import cases
from refmaml.oracles.tolerance import relative_error, tolerance

REFERENCE = kernels.reference()
PRECISIONS = [np.float32, np.float64]
LARGER = [
    cases.LayerCase(Conv2d(16, 24, 3, stride=2, padding="same"), (16, 15, 14)),
    cases.LayerCase(Conv2d(1, 32, 3, padding=1), (1, 20, 20)),
    cases.LayerCase(Linear(90, 70), (90,)),
    cases.LayerCase(BatchNorm2d(24), (24, 13, 14)),
    cases.LayerCase(ReLU(), (24, 13, 14)),
    cases.LayerCase(MaxPool2d(2), (24, 13, 14)),
    cases.LayerCase(GroupNorm(8, 24), (24, 13, 14)),
    cases.LayerCase(LayerNorm((24, 13, 14)), (24, 13, 14)),
]
TINY = [
    cases.LayerCase(Conv2d(1, 1, 1), (1, 1, 1)),
    cases.LayerCase(Conv2d(2, 1, 3, padding=1), (2, 1, 1)),
    cases.LayerCase(Linear(1, 1), (1,)),
    cases.LayerCase(BatchNorm2d(1), (1, 1, 2)),
    cases.LayerCase(MaxPool2d(1), (1, 1, 1)),
    cases.LayerCase(LayerNorm((1, 2, 3)), (1, 2, 3)),
]
# For kernels in blocks of threads: products whose extents all end inside a tile, and
# others that fill more than one tile. The dw of the second has rows of 72 numbers,
# which are read four at a time, and an odd number of elements from task to task, so
# that not all tasks begin at a multiple of 16 bytes.
TILES = [
    cases.LayerCase(Conv2d(3, 70, 3, stride=2, padding=1), (3, 9, 8)),
    cases.LayerCase(Conv2d(8, 5, 3, bias=False), (8, 6, 7)),
    cases.LayerCase(Linear(90, 70), (90,)),
]
# Sums so long that a few tiles are divided among several blocks. A stride larger than
# the window, so that some pixels are in no window. As many taps as a dw by positions
# may have. So many positions that they are divided into parts.
DEEP = [
    cases.LayerCase(Conv2d(20, 6, 3, padding=1), (20, 8, 8)),
    cases.LayerCase(Conv2d(2, 3, (2, 3), stride=(3, 2)), (2, 8, 9)),
    cases.LayerCase(Conv2d(4, 5, 2), (4, 6, 7)),
    cases.LayerCase(Conv2d(1, 6, 3, padding=1), (1, 33, 32)),
]
# More sums and results than one round of a team computes, and than one block.
ROUNDS = [
    cases.LayerCase(BatchNorm2d(2), (2, 9, 8)),
    cases.LayerCase(ReLU(), (3, 9, 8)),
    cases.LayerCase(MaxPool2d(2), (3, 19, 18)),
    cases.LayerCase(GroupNorm(2, 4), (4, 9, 8)),
]
CUDA_CASES = [*cases.LAYERS, *TINY, *TILES, *DEEP, *ROUNDS]


def poisoned(kernel_set):
    """The same kernels; new arrays hold NaN (integers: -1) until they are filled."""

    def empty(shape, dtype):
        a = kernel_set.empty(shape, dtype)
        a[...] = np.nan if a.dtype.kind == "f" else -1
        return a

    return kernels.KernelSet(kernel_set.name, kernel_set.functions, empty=empty)


def draws(case, tasks, shared, dtype):
    """The inputs of a layer's four passes: w, rw, x, rx, dy, rdy.

    Inputs near a kink do not matter, because both kernel sets get the same x.
    """
    rng = np.random.default_rng(0)

    def draw(shape):
        return rng.standard_normal(shape).astype(dtype)

    def parameters():
        return {
            name: draw((1 if shared else tasks, *shape))
            for name, shape in case.layer.shapes().items()
        }

    w, rw = parameters(), parameters()
    x, rx = draw((tasks, cases.EXAMPLES, *case.shape)), draw((tasks, cases.EXAMPLES, *case.shape))
    y = case.layer.forward(REFERENCE, w, x)[0]
    return w, rw, x, rx, draw(y.shape), draw(y.shape)


def gradients(case, tasks, dtype):
    """Gradients full of NaN, as views of a matrix (T, P): with gaps
    between the tasks.
    """
    sizes = {name: int(np.prod(shape)) for name, shape in case.layer.shapes().items()}
    matrix, out, start = np.full((tasks, sum(sizes.values()) + 1), np.nan, dtype), {}, 0
    for name, size in sizes.items():
        out[name] = matrix[:, start : start + size].reshape(tasks, *case.layer.shapes()[name])
        start += size
    return out


def passes(case, k, w, rw, x, rx, dy, rdy):
    """All results of the four passes, by name."""
    k, layer = poisoned(k), case.layer
    dw, rdw = gradients(case, len(x), x.dtype), gradients(case, len(x), x.dtype)
    y, saved = layer.forward(k, w, x)
    dx = layer.backward(k, dw, w, saved, dy)
    ry, rsaved = layer.r_forward(k, w, rw, saved, rx)
    rdx = layer.r_backward(k, rdw, w, rw, saved, rsaved, dy, rdy)
    named = {"y": y, "dx": dx, "ry": ry, "rdx": rdx}
    return {**named, **{f"d{n}": a for n, a in dw.items()}, **{f"rd{n}": a for n, a in rdw.items()}}


def worst(case, candidate, *inputs):
    """(the largest error of a kernel set as a fraction of its
    tolerance, the quantity).
    """
    w, _, x, _, dy, _ = inputs
    limit = tolerance(x.dtype, max(x[0].size, dy[0].size, *(a[0].size for a in w.values()), 1))
    truth, values = (passes(case, k, *inputs) for k in (REFERENCE, candidate))
    for name, value in values.items():
        assert value.dtype == x.dtype, name
    return max((relative_error(values[name], truth[name]) / limit, name) for name in truth)


def far_from_zero(case, k, mean, exact_case=None):
    """{quantity: error}: a layer in float32 on x and rx around `mean`.

    The truth is the reference on the same numbers in float64, of `exact_case` if given.
    """
    w, rw, x, rx, dy, rdy = draws(exact_case or case, 2, False, np.float32)
    x, rx = x + np.float32(mean), rx + np.float32(mean)

    def double(part):
        return {n: a.astype(float) for n, a in part.items()}

    single = passes(case, k, w, rw, x, rx, dy, rdy)
    arrays = (a.astype(float) for a in (x, rx, dy, rdy))
    exact = passes(exact_case or case, REFERENCE, double(w), double(rw), *arrays)
    return {name: float(relative_error(single[name], exact[name])) for name in exact}


def loss_passes(loss, k, dtype):
    """All results of the three passes of a loss."""
    rng = np.random.default_rng(0)
    z, y = cases.loss_inputs(loss, rng)
    rz = rng.standard_normal(z.shape).astype(dtype)
    value, saved = loss.forward(
        poisoned(k), z.astype(dtype), y if isinstance(loss, CrossEntropy) else y.astype(dtype)
    )
    return value, loss.backward(poisoned(k), saved), loss.r_backward(poisoned(k), saved, rz)


def vectors_passes(k, dtype, tasks=3, P=70_001):
    """The results of the kernels on flat vectors, with a row per task
    and a shared row.
    """
    rng = np.random.default_rng(0)
    a, b, rates = (rng.standard_normal((tasks, P)).astype(dtype) for _ in range(3))
    out = {}
    for name, a_, rates_ in (("own", a, rates), ("shared", a[:1], rates[:1])):
        stepped, scaled, total = k.empty(b.shape, dtype), k.empty(b.shape, dtype), rates[:1].copy()
        k.vector_step(stepped, a_, rates_, b)
        k.vector_scale(scaled, rates_, b)
        k.vector_add_rows(total, b)
        s = np.array([[0.3], [0], [-2]], dtype)
        moved, pulled = k.empty(b.shape, dtype), k.empty(b.shape, dtype)
        k.vector_move(moved, a_, s, np.where(s == 0, np.inf, b).astype(dtype))
        k.vector_proximal_step(pulled, b, rates_, rates, a_, 0.7)
        moved_b, moved_a = b.copy(), b.copy()
        k.vector_move(moved_b, a_, s, moved_b)
        k.vector_move(moved_a, moved_a, s, a)
        out |= {
            f"{name} move": moved,
            f"{name} move in b": moved_b,
            f"{name} move in a": moved_a,
            f"{name} proximal": pulled,
        }
        in_place = b.copy()
        k.vector_step(in_place, a_, rates_, in_place)
        adapted, moment, seen = (
            k.empty(b.shape, dtype),
            k.empty(b.shape, dtype),
            np.full((1, 1), 0.3, dtype),
        )
        k.vector_adam_step(adapted, moment, a_, rates_, b, rates_ * rates_, seen, 0.9, 1e-3)
        second, in_moment = k.empty(b.shape, dtype), b * b
        k.vector_adam_step(second, in_moment, a_, rates_, b, in_moment, seen, 0.9, 1e-3)
        out |= {
            f"{name} adam": adapted,
            f"{name} moment": moment,
            f"{name} adam in place": second,
            f"{name} moment in place": in_moment,
        }
        out |= {
            f"{name} step": stepped,
            f"{name} scale": scaled,
            f"{name} sum": total,
            f"{name} in place": in_place,
        }
    return out


def dots(k, dtype, tasks=3, P=70_001):
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
    P = sizes.get("P", 70_001)
    return max(
        float((abs(value - exact) / size).max())
        for value, exact, size in dots(k, dtype, **sizes).values()
    ) / tolerance(dtype, P)


def same_bits_from_any_order_of_memory(kernel_set):
    """Asserts that arrays in Fortran order, with gaps, or read-only give the same bits
    as contiguous ones.
    """
    case = cases.LAYERS[3]
    inputs = draws(case, 3, False, np.float64)
    unusual = [
        {n: np.asfortranarray(a) for n, a in part.items()}
        if isinstance(part, dict)
        else np.repeat(part, 2, axis=-1)[..., ::2]
        for part in inputs
    ]
    for part in unusual:
        for a in part.values() if isinstance(part, dict) else (part,):
            a.flags.writeable = False
    usual, other = passes(case, kernel_set, *inputs), passes(case, kernel_set, *unusual)
    assert all(np.array_equal(usual[name], other[name]) for name in usual)
