"""Winograd's filtering: exact identities, products, rounding errors, the choice."""

from fractions import Fraction

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.kernels.conv2d import reference
from refmaml.kernels.conv2d.gather_indices import BACKWARD_W, BACKWARD_X, FORWARD, gather_indices
from refmaml.kernels.conv2d.winograd_matrices import OUTPUTS, TAPS, TILE, matrices, transposed
from refmaml.oracles.tolerance import relative_error, tolerance

pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

from refmaml.kernels.conv2d import algorithms, winograd_block
from refmaml.kernels.conv2d import cpu as conv2d

ALL = FORWARD, BACKWARD_X, BACKWARD_W


# ---- the matrices, in exact arithmetic -----------------------------------------------


def times(M, v):
    return [sum(a * b for a, b in zip(row, v, strict=True)) for row in M]


def test_the_matrices_give_four_outputs_of_three_taps_exactly():
    A, G, B = matrices()
    for i in range(TAPS):
        for j in range(TILE):
            g = [Fraction(int(k == i)) for k in range(TAPS)]
            d = [Fraction(int(k == j)) for k in range(TILE)]
            product = [a * b for a, b in zip(times(G, g), times(B, d), strict=True)]
            assert times(A, product) == [
                sum(g[q] * d[p + q] for q in range(TAPS)) for p in range(OUTPUTS)
            ]


def test_other_points_give_the_same_outputs_and_a_wrong_entry_does_not():
    rng = np.random.default_rng(0)
    g, d = ([Fraction(int(n)) for n in rng.integers(-9, 9, size)] for size in (TAPS, TILE))
    expected = [sum(g[q] * d[p + q] for q in range(TAPS)) for p in range(OUTPUTS)]
    for points in ((0, 1, -1, 2, -2), (0, 1, 2, 3, 4)):
        A, G, B = matrices(tuple(map(Fraction, points)))
        product = [a * b for a, b in zip(times(G, g), times(B, d), strict=True)]
        assert times(A, product) == expected
        G[1][1] += Fraction(1, 1000)
        wrong = [a * b for a, b in zip(times(G, g), times(B, d), strict=True)]
        assert times(A, wrong) != expected


def test_the_transform_of_an_adjoint_is_the_transpose():
    A, _, _ = matrices()
    assert transposed(transposed(A)) == A
    assert np.shape(transposed(A)) == (TILE, OUTPUTS)


# ---- the products, against the reference kernels -------------------------------------

# (C, O, H, W, N, top, left): tiles that end outside; paddings of 0, 1 and 2; an extent
# for each axis; more and fewer images than are computed at a time.
SHAPES = [
    (32, 48, 8, 11, 3, 1, 1),
    (48, 32, 9, 6, 7, 0, 2),
    (32, 32, 5, 13, 1, 2, 0),
    (32, 32, 4, 4, 60, 1, 1),
]


@pytest.fixture
def always(monkeypatch):
    """Winograd's products wherever they exist, however small."""

    def blocks(choose):
        def block(what, N, C, H, W, O, Ho, Wo, kernel, stride, start, dilation=(1, 1)):
            shape = what, N, C, H, W, O, Ho, Wo
            if choose:
                return winograd_block.winograd_block(*shape, start)
            return gather_indices(*shape, kernel, stride, start, dilation)

        monkeypatch.setattr(conv2d, "product_block", block)

    return blocks


def problem(shape, dtype, T=2, seed=0):
    """x, w, dy and their tangents, and the padding."""
    C, O, H, W, N, top, left = shape
    rng, (bottom, right) = np.random.default_rng(seed), (1, 1)
    Ho, Wo = H + top + bottom - 2, W + left + right - 2
    extents = (T, N, C, H, W), (T, O, C, 3, 3), (T, N, O, Ho, Wo)
    arrays = [rng.standard_normal(e).astype(dtype) for e in extents for _ in range(2)]
    return arrays, ((top, bottom), (left, right))


def six_products(kernel, arrays, padding):
    """{name: result} of the six products of a module of kernels."""
    (x, rx, w, rw, dy, rdy), out = arrays, {}
    like = {"y": dy, "dx": x, "dw": w}
    for name, into, given in (
        ("conv2d_forward", "y", (x, w)),
        ("conv2d_r_forward", "y", (x, rx, w, rw)),
        ("conv2d_backward_x", "dx", (dy, w)),
        ("conv2d_r_backward_x", "dx", (dy, rdy, w, rw)),
        ("conv2d_backward_w", "dw", (x, dy)),
        ("conv2d_r_backward_w", "dw", (x, rx, dy, rdy)),
    ):
        out[name] = np.full_like(like[into], np.nan)
        getattr(kernel, name)(out[name], *given, (1, 1), padding)
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_every_product_agrees_with_the_reference(shape, always):
    always(True)
    arrays, padding = problem(shape, np.float64)
    exact = six_products(reference, arrays, padding)
    terms = {"y": 9 * shape[0], "x": 9 * shape[1], "w": arrays[4][0, :, 0].size}
    for name, value in six_products(conv2d, arrays, padding).items():
        # Sums over the taps are not sums of products here: three times the rounding.
        kind = "y" if name.endswith("forward") else name[-1]
        assert relative_error(value, exact[name]) <= 3 * tolerance(np.float64, terms[kind]), name


def test_a_wrong_place_of_a_tile_is_found(always, monkeypatch):
    made = winograd_block.winograd_block

    def shifted(what, *shape):
        block = made(what, *shape).copy()
        block[winograd_block.HEADER + 7] += shape[1] if what != BACKWARD_X else shape[4]
        return block

    monkeypatch.setattr(winograd_block, "winograd_block", shifted)
    always(True)
    arrays, padding = problem(SHAPES[0], np.float64)
    exact = six_products(reference, arrays, padding)
    for name, value in six_products(conv2d, arrays, padding).items():
        assert relative_error(value, exact[name]) > 1e-4, name


def rounding_errors(chosen, always, shape, seed):
    """{name: root mean square error in float32}."""
    always(chosen)
    arrays, padding = problem(shape, np.float32, 1, seed)
    exact = six_products(reference, [a.astype(np.float64) for a in arrays], padding)
    made = six_products(conv2d, arrays, padding)
    return {name: np.sqrt(np.mean((made[name] - exact[name]) ** 2)) for name in made}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(32, 32, 14, 14, 2, 1, 1), (64, 64, 7, 7, 5, 1, 1)])
def test_errors_in_float32_are_at_most_three_times_those_of_the_direct_products(shape, always):
    direct, here = (rounding_errors(chosen, always, shape, 0) for chosen in (False, True))
    for name, error in here.items():
        assert error <= 3 * direct[name], (name, error / direct[name])
        assert error > 0


# ---- the choice ----------------------------------------------------------------------


def chosen(N, C, O, H, kernel=(3, 3), stride=(1, 1), dilation=(1, 1)):
    """Which of the three products are Winograd's, of an image of H x H."""
    Ho = (H + 2 - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
    return [
        algorithms.by_winograd(
            algorithms.product_block(what, N, C, H, H, O, Ho, Ho, kernel, stride, (1, 1), dilation)
        )
        for what in ALL
    ]


def test_large_stride_one_products_are_winograds_and_small_ones_direct():
    assert chosen(75, 64, 64, 14) == chosen(5, 64, 64, 14) == chosen(25, 32, 32, 7) == [True] * 3
    assert chosen(75, 64, 64, 3) == chosen(1, 64, 64, 7) == [False] * 3
    # One image of 14 x 14: dw sums over too few positions to be as accurate.
    assert chosen(1, 64, 64, 14) == [True, True, False]


@pytest.mark.parametrize(
    "changed",
    [
        {"kernel": (5, 5)},
        {"kernel": (3, 1)},
        {"stride": (2, 2)},
        {"dilation": (2, 2)},
        {"C": 24},
        {"O": 40},
        {"C": 16, "O": 16},
    ],
)
def test_what_has_no_transforms_or_too_few_channels_is_direct(changed):
    assert chosen(**{"N": 75, "C": 64, "O": 64, "H": 14} | changed) == [False] * 3


# ---- in a net ------------------------------------------------------------------------


def meta_gradient(net, threads, dtype):
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((3, n, *net.input_shape)).astype(dtype) for n in (5, 10)]
    y = [np.tile(np.arange(n) % 5, (3, 1)) for n in (5, 10)]
    net = net.with_kernels(kernels.cpu(threads=threads) if threads else kernels.reference())
    theta = net.init(0).astype(dtype)
    batch = rm.Batch(x[0], y[0], x[1], y[1])
    return rm.MAML(inner_steps=1, inner_lr=0.1).meta_gradient(net, theta, batch).grad


@pytest.mark.slow
def test_a_net_of_such_convolutions_agrees_and_has_the_same_bits_on_any_number_of_threads():
    layers = [rm.Conv2d(1, 32, 3, padding=1), rm.Softplus(), rm.Conv2d(32, 32, 3, padding=1)]
    layers += [rm.BatchNorm2d(32), rm.Tanh(), rm.SpatialMean(), rm.Flatten(), rm.Linear(32, 5)]
    net = rm.Sequential(layers, rm.CrossEntropy(), (1, 12, 12))
    assert chosen(5, 32, 32, 12)[:2] == [True, True]
    exact = meta_gradient(net, 0, np.float64)
    one, two, four = (meta_gradient(net, n, np.float64) for n in (1, 2, 4))
    assert relative_error(one, exact) <= 3 * tolerance(np.float64, 9 * 32 * 12 * 12)
    assert np.array_equal(one, two) and np.array_equal(one, four)
