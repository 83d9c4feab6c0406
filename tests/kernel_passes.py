"""What a kernel set computes for a layer or a loss on random inputs.

The tests of fast kernels share it.
"""

import numpy as np
import pytest

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
# Kernels are compiled for each precision, which takes longer than their tests: tests of
# many kernels leave one precision to `make test-slow`.
SLOW_FLOAT64 = pytest.param(np.float64, marks=pytest.mark.slow)
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
# products that fill more than one tile. The dw of the second has rows of 72 numbers,
# which kernels read four at a time. Its tasks are an odd number of elements apart, so
# not all tasks begin at a multiple of 16 bytes.
TILES = [
    cases.LayerCase(Conv2d(3, 70, 3, stride=2, padding=1), (3, 9, 8)),
    cases.LayerCase(Conv2d(8, 5, 3, bias=False), (8, 6, 7)),
    cases.LayerCase(Linear(90, 70), (90,)),
]
# In this order: sums so long that several blocks share a tile; a stride larger than the
# window, so that some pixels are in no window; the largest number of taps that a dw by
# positions may have; so many positions that they are divided into parts.
DEEP = [
    cases.LayerCase(Conv2d(20, 6, 3, padding=1), (20, 8, 8)),
    cases.LayerCase(Conv2d(2, 3, (2, 3), stride=(3, 2)), (2, 8, 9)),
    cases.LayerCase(Conv2d(4, 5, 2), (4, 6, 7)),
    cases.LayerCase(Conv2d(1, 6, 3, padding=1), (1, 33, 32)),
]
# More sums and results than a team or a block computes in one round.
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
    """Gradients full of NaN, as views of a matrix (T, P), with gaps between tasks."""
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
    """(the largest error of a kernel set / its tolerance, the quantity)."""
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


def same_bits_from_any_order_of_memory(kernel_set):
    """Asserts that Fortran-ordered, strided and read-only arrays give the same bits."""
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


def nonfinite_where_the_reference_is(candidate, layer):
    """Asserts that NaN and infinity appear in the same entries as in the reference."""
    values = np.array([np.nan, np.inf, -np.inf, -1e4, 1e4, 0.0, -0.0, 1.0])
    x = values.repeat(8).reshape(2, 1, 2, 4, 4).swapaxes(0, 3).copy()
    with np.errstate(all="ignore"):
        y = layer.forward(REFERENCE, {}, x)[0]
        case = cases.LayerCase(layer, x.shape[2:])
        truth, found = (passes(case, k, {}, {}, x, x, y, y) for k in (REFERENCE, candidate))
    for name in truth:
        assert np.array_equal(np.isnan(truth[name]), np.isnan(found[name])), name
        assert np.array_equal(np.isinf(truth[name]), np.isinf(found[name])), name
