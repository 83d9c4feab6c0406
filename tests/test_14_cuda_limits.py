"""CUDA kernels at the limits of narrow integers, and batch-norm far from zero."""

from types import SimpleNamespace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from cuda_shim.kernels import max_pool_passes
from fused_layers import FUSED_REFERENCE
from kernel_passes import REFERENCE

from refmaml import kernels
from refmaml.kernels.cuda_runtime.launcher import MAX_NUMBERS, Launcher
from refmaml.kernels.pooling import cuda as pooling
from refmaml.layers import BatchNorm2d, Conv2d, MaxPool2d
from refmaml.oracles.tolerance import relative_error, tolerance

shim = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
SIDE = 182  # 182 x 182 = 33124 places, more than int16 numbers


class RefusingDevice:
    """A device that fails at any work."""

    xp = SimpleNamespace(ndarray=np.ndarray, ascontiguousarray=lambda a: pytest.fail("a copy"))

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def launch(self, *arguments):
        pytest.fail("a launch")


# ---- max-pooling: int16 and int32 winners --------------------------------------------


@shim
def test_a_window_with_more_places_than_int16_numbers_has_its_true_winner(cuda):
    x = np.zeros((1, 1, 1, SIDE, SIDE))
    x[..., -1, -2] = 1  # the last place but one, 33122
    layer = MaxPool2d(SIDE)
    for k in (REFERENCE, cuda):
        y, saved = layer.forward(k, {}, x)
        assert saved.place.dtype == np.int32 and saved.place.item() == SIDE * SIDE - 2
        dx = layer.backward(k, {}, {}, saved, y)
        assert np.array_equal(dx, x) and layer.r_forward(k, {}, {}, saved, 3 * x)[0] == 3


@shim
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_winners_of_both_integer_types_give_the_same_bits(cuda, dtype):
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 7, 9)).astype(dtype)
    for window, stride in (((2, 2), (2, 2)), ((3, 2), (1, 2))):
        truth = max_pool_passes(REFERENCE, np.int64, x, window, stride)
        for winner_dtype in (np.int16, np.int32):
            for a, b in zip(
                max_pool_passes(cuda, winner_dtype, x, window, stride), truth, strict=True
            ):
                assert np.array_equal(a, b)


@pytest.mark.parametrize("k", ["reference", "cuda"])
def test_winners_of_too_narrow_a_type_are_refused_before_any_work(k):
    candidate = REFERENCE if k == "reference" else kernels.cuda(RefusingDevice(), xp=np)
    x, y = np.zeros((1, 1, 1, SIDE, SIDE)), np.full((1, 1, 1, 1, 1), np.nan)
    message = "winner: expected integers up to 33123 for windows of 182 x 182, got int16"
    with pytest.raises(ValueError, match=f"^{message}$"):
        candidate.max_pool2d_forward(y, np.empty(y.shape, np.int16), x, (182, 182), (182, 182))
    assert np.isnan(y).all()


def test_the_widest_windows_of_each_type_are_accepted():
    pooling.expect_wide_enough(np.empty(1, np.int8), (8, 16))
    pooling.expect_wide_enough(np.empty(1, np.int16), (128, 256))
    for dtype, window in ((np.int8, (3, 43)), (np.int16, (1, 32769))):
        with pytest.raises(ValueError, match="winner: expected integers up to"):
            pooling.expect_wide_enough(np.empty(1, dtype), window)


@pytest.mark.parametrize("name", ["forward", "gather", "backward"])
def test_winners_of_another_integer_type_are_not_read_as_int16(name):
    a, winner = np.zeros((1, 1, 1, 2, 2)), np.zeros((1, 1, 1, 1, 1), np.int8)
    arguments = {
        "forward": (np.zeros(winner.shape), winner, a),
        "gather": (np.zeros(winner.shape), winner, a),
        "backward": (a, winner, np.zeros(winner.shape)),
    }[name]
    kernel = getattr(kernels.cuda(RefusingDevice(), xp=np), f"max_pool2d_{name}")
    with pytest.raises(ValueError, match="^winner: expected int16 or int32, got int8$"):
        kernel(*arguments, (2, 2), (2, 2))


# ---- the fused kernels keep winners as int8 ------------------------------------------


def fused_forward(k, place_dtype, window):
    x = np.random.default_rng(0).standard_normal((1, 1, 1, *window))
    one, channel = (1, 1, 1, 1, 1), np.ones((1, 1))
    y, place = np.empty(one), np.empty(one, place_dtype)
    mean, s = np.empty((1, 1)), np.empty((1, 1))
    k.norm_act_pool_forward(y, place, mean, s, x, channel, 0 * channel, 1e-5, 0.0, window)
    return int(place.item()), int(np.argmax(x))


@shim
def test_the_fused_kernels_number_the_128_places_of_int8(cuda):
    for k in (FUSED_REFERENCE, cuda):
        found, truth = fused_forward(k, np.int8, (8, 16))
        assert found == truth


@pytest.mark.parametrize("k", ["reference", "cuda"])
def test_the_fused_kernels_refuse_more_places_than_int8_numbers(k):
    candidate = FUSED_REFERENCE if k == "reference" else kernels.cuda(RefusingDevice(), xp=np)
    with pytest.raises(ValueError, match="expected integers up to 128 for windows of 3 x 43"):
        fused_forward(candidate, np.int8, (3, 43))


def test_the_fused_kernels_refuse_places_that_they_would_read_as_int8():
    with pytest.raises(ValueError, match="^place: expected int8, got int16$"):
        fused_forward(kernels.cuda(RefusingDevice(), xp=np), np.int16, (2, 2))


# ---- the launcher --------------------------------------------------------------------


def test_a_task_with_more_numbers_than_int_counts_is_refused_before_any_work():
    """The loops of a kernel count past the end, by less than 2^16."""
    assert MAX_NUMBERS + 2**16 <= 2**31
    launch, out = Launcher(RefusingDevice()), np.empty((1, 4))
    too_long = np.broadcast_to(np.zeros(()), (1, MAX_NUMBERS + 1))
    with pytest.raises(ValueError, match=f"expected at most {MAX_NUMBERS} numbers in a task"):
        launch.elements("vector", "vector_scale", [out], [too_long, out], 4)


@pytest.mark.parametrize("n", [2**31, -(2**31) - 1])
def test_an_integer_that_does_not_fit_is_refused_before_any_work(n):
    launch, a = Launcher(RefusingDevice()), np.empty((1, 4))
    message = f"vector_scale: expected integers of 32 bits, got {n}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        launch.elements("vector", "vector_scale", [a], [a, a], n)


@shim
def test_a_stride_far_beyond_the_image_is_that_of_its_extents(cuda):
    """Otherwise dx has a group of pixels for each remainder of the stride."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 2, 5, 6)), rng.standard_normal((1, 3, 2, 3, 2))
    layer = Conv2d(2, 3, (3, 2), stride=10**9, bias=False)
    results = []
    for k in (REFERENCE, cuda):
        dw = {"weight": np.empty_like(w)}
        y, saved = layer.forward(k, {"weight": w}, x)
        results.append((y, layer.backward(k, dw, {"weight": w}, saved, y), dw["weight"]))
    for a, b in zip(*results, strict=True):
        assert relative_error(b, a) <= tolerance(float, x.size)


# ---- batch-norm of inputs far from zero ----------------------------------------------


def far_from_zero(dtype):
    """x with mean / standard deviation = 1000 in its own precision, and dy."""
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((2, 25, 3, 14, 14))).astype(np.float32)
    return x.astype(dtype), rng.standard_normal(x.shape).astype(np.float32).astype(dtype)


def normalised(k, dtype):
    """(y, dx, ry, rdx) of batch-norm without parameters."""
    x, dy = far_from_zero(dtype)
    layer = BatchNorm2d(3, gamma=False, beta=False)
    y, saved = layer.forward(k, {}, x)
    ry, rsaved = layer.r_forward(k, {}, {}, saved, dy)
    rdx = layer.r_backward(k, {}, {}, {}, saved, rsaved, dy, dy)
    return y, layer.backward(k, {}, {}, saved, dy), ry, rdx


@pytest.mark.parametrize("name", ["reference", pytest.param("cuda", marks=shim)])
def test_batch_norm_of_inputs_far_from_zero_is_exact_to_rounding(request, name):
    """x - mean is exact in float32, and its own mean is subtracted from it.

    So each result is off by some roundings of its own size, as in a pairwise sum of 13
    levels.
    """
    k = REFERENCE if name == "reference" else request.getfixturevalue("cuda")
    for single, exact in zip(normalised(k, "f"), normalised(REFERENCE, "d"), strict=True):
        assert relative_error(single, exact) <= tolerance(np.float32, 13)


@pytest.mark.parametrize("name", ["reference", pytest.param("cuda", marks=shim)])
def test_the_fused_mean_of_inputs_far_from_zero_is_rounded_once(request, name):
    """The stored mean is rounded relative to 1000, and so is its correction."""
    k = FUSED_REFERENCE if name == "reference" else request.getfixturevalue("cuda")
    x = np.moveaxis(far_from_zero("f")[0], 2, -1).reshape(2, -1, 3, 1, 1)  # long sums over N
    y, place = np.empty_like(x), np.empty((2, 0, 0, 0, 0), np.int8)
    mean, s = np.empty((2, 3), "f"), np.empty((2, 3), "f")
    one = np.ones((1, 3), "f")
    k.norm_act_pool_forward(y, place, mean, s, x, one, 0 * one, 1e-5, 1.0, (1, 1))
    exact = x.astype("d").mean(axis=(1, 3, 4))
    assert np.abs(mean - exact).max() <= np.finfo("f").eps * 1000
    exact_s = 1 / np.sqrt(x.astype("d").var(axis=(1, 3, 4)) + 1e-5)
    assert relative_error(s, exact_s) <= tolerance(np.float32, 25 * 14 * 14)


# ---- batch-norm whose variance overflows ---------------------------------------------


def with_overflow(dtype):
    """x (1, 5, 3, 7): one channel whose variance overflows, one with NaN, one of noise.

    The mean of the first is not exact, so the square of its error overflows, too.
    """
    x = np.random.default_rng(0).standard_normal((1, 5, 3, 7)).astype(dtype)
    x[:, :, 0] *= np.finfo(dtype).max / 100
    x[:, :, 0] = np.abs(x[:, :, 0])
    x[0, 1, 1, 2] = np.nan
    return x


@shim
@pytest.mark.parametrize("dtype", ["f", "d"])
def test_a_variance_that_overflows_is_infinite_as_in_the_reference(cuda, dtype):
    x, one = with_overflow(dtype), np.ones((1, 3), dtype)
    found = []
    for k in (REFERENCE, cuda):
        y, xh, s = np.empty_like(x), np.empty_like(x), np.empty((1, 3), dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            k.batch_norm_forward(y, xh, s, x, one, one, 1e-5)
        found.append((y, s))
    (y, s), (cuda_y, cuda_s) = found
    assert s[0, 0] == 0 and np.isnan(s[0, 1]) and (y[:, :, 0] == 1).all()
    np.testing.assert_allclose(cuda_s, s, rtol=tolerance(dtype, 35), atol=0)
    np.testing.assert_allclose(cuda_y, y, rtol=0, atol=10 * tolerance(dtype, 35))


@shim
@pytest.mark.parametrize("dtype", ["f", "d"])
def test_a_fused_variance_that_overflows_is_infinite_as_in_the_reference(cuda, dtype):
    x, one = with_overflow(dtype)[..., None], np.ones((1, 3), dtype)
    y, place = np.empty_like(x), np.empty((1, 0, 0, 0, 0), np.int8)
    mean, s = np.empty((1, 3), dtype), np.empty((1, 3), dtype)
    cuda.norm_act_pool_forward(y, place, mean, s, x, one, one, 1e-5, 1.0, (1, 1))
    assert s[0, 0] == 0 and np.isnan(s[0, 1]) and (y[:, :, 0] == 1).all()
