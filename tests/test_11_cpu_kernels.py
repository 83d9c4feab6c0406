"""The Numba kernels against the reference kernels: every layer and loss of the ladder.

Both precisions are tested. Most tests use one thread: the versions for several threads
are the same code, compiled again, and one test compares their bits.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
from kernel_passes import (
    LARGER,
    PRECISIONS,
    REFERENCE,
    SLOW_FLOAT64,
    TINY,
    draws,
    loss_passes,
    nonfinite_where_the_reference_is,
    same_bits_from_any_order_of_memory,
    worst,
)
from vector_passes import (
    P_LARGE,
    dots,
    same_bits_of_a_sum_beside_other_rows,
    vectors_passes,
    worst_dot,
)

import refmaml as rm
from refmaml import kernels
from refmaml.layers import LeakyReLU, MaxPool2d, ReLU, Softplus, Tanh
from refmaml.oracles import cases
from refmaml.oracles.tolerance import relative_error, tolerance

numba = pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")
CPU = kernels.cpu(threads=1)


@pytest.mark.parametrize("dtype", [np.float32, SLOW_FLOAT64])
@pytest.mark.parametrize("case", [*cases.LAYERS, *LARGER, *TINY], ids=str)
def test_every_pass_of_every_layer_agrees_with_the_reference(case, dtype):
    for tasks, shared in ((cases.TASKS, False), (cases.TASKS, True), (1, False)):
        fraction, name = worst(case, CPU, *draws(case, tasks, shared, dtype))
        assert fraction <= 1, f"{name}: {fraction} of the tolerance"


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("loss", cases.LOSSES, ids=str)
def test_every_pass_of_every_loss_agrees_with_the_reference(loss, dtype):
    for a, b in zip(
        loss_passes(loss, REFERENCE, dtype), loss_passes(loss, CPU, dtype), strict=True
    ):
        assert b.dtype == dtype and relative_error(b, a) <= tolerance(dtype, 16)


def test_in_float32_the_cpu_kernels_are_as_accurate_as_the_reference_on_a_net_of_real_size():
    """A sum of a thousand float32 numbers in order would pass the tests above.

    But it would lose a digit.
    """
    net = rm.conv4(5, channels=16, loss=rm.CrossEntropy("sum/K"), kernels=kernels.reference())
    method, data, ratios = rm.MAML(0.4, 1, frozen=("BatchNorm2d",)), rm.Glyphs("train"), []
    for seed in range(4):
        theta, batch = net.init(seed), data.sample(2, 5, 1, 1, seed=seed)
        exact = method.meta_gradient(net, theta.astype(np.float64), batch).grad
        errors = [
            np.linalg.norm(method.meta_gradient(net.with_kernels(k), theta, batch).grad - exact)
            for k in (CPU, REFERENCE)
        ]
        ratios.append(errors[0] / errors[1])
    # Two roundings of one number differ by chance; a lost digit is a factor of ten.
    assert np.median(ratios) < 3, ratios


THREADS = """
import hashlib
import numba
import numpy as np
import refmaml as rm

net = rm.conv4(5, channels=24, head="flatten", kernels=rm.kernels.cpu())
rng = np.random.default_rng(0)
x, y = rng.standard_normal((5, 5, 1, 28, 28)).astype("f"), rng.integers(0, 5, (5, 5))
theta, v = net.init(0)[None], rng.standard_normal((5, net.num_params)).astype("f")

def bits(net):
    primal = net.primal(theta, x, y)
    arrays = primal.loss, primal.grad, net.hvp(primal, v)
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()

seen = [bits(net.with_kernels(rm.kernels.cpu(threads=n))) for n in (1, 3)]
for n in (1, 2, 4, 4):
    numba.set_num_threads(n)
    seen.append(bits(net))
print(len(seen), len(set(seen)))
"""


def test_the_bits_are_the_same_on_one_two_three_and_four_threads():
    environment = {**os.environ, "NUMBA_NUM_THREADS": "4", "OMP_WAIT_POLICY": "passive"}
    result = subprocess.run(
        [sys.executable, "-c", THREADS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.stdout.split() == ["6", "1"], result.stdout + result.stderr


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_arithmetic_on_vectors_has_the_bits_of_the_reference_on_any_number_of_threads(dtype):
    truth = vectors_passes(REFERENCE, dtype)
    for k in (CPU, kernels.cpu(threads=3)):
        for name, value in vectors_passes(k, dtype).items():
            assert np.array_equal(value, truth[name]), name


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_sum_over_a_row_has_the_same_bits_however_many_rows_and_threads_there_are(dtype):
    assert worst_dot(REFERENCE, dtype) <= 1
    for k in (REFERENCE, CPU, kernels.cpu(threads=3)):
        for name, (value, *_) in dots(k, dtype).items():
            assert np.array_equal(value, dots(REFERENCE, dtype)[name][0]), name
    for k in (REFERENCE, CPU):
        same_bits_of_a_sum_beside_other_rows(k, dtype, P_LARGE)


@pytest.mark.parametrize(
    "kernel", sorted(name for name in CPU.functions if not name.startswith("vector_"))
)
def test_a_kernel_that_is_wrong_by_a_thousandth_is_caught(kernel):
    def wrong(out, *rest):
        CPU.functions[kernel](out, *rest)
        out *= out.dtype.type(1.001)

    candidate, dtype = CPU.replace(**{kernel: wrong}), np.float32
    if kernel.startswith(("cross_entropy", "squared_error")):
        losses = [loss_passes(loss, REFERENCE, dtype) for loss in cases.LOSSES]
        changed = [loss_passes(loss, candidate, dtype) for loss in cases.LOSSES]
        assert any(
            relative_error(b, a) > tolerance(dtype, 16)
            for x, y in zip(losses, changed, strict=True)
            for a, b in zip(x, y, strict=True)
        )
    else:
        assert any(
            worst(case, candidate, *draws(case, 2, False, dtype))[0] > 1 for case in cases.LAYERS
        )


@pytest.mark.parametrize(
    "layer", [ReLU(), LeakyReLU(0.2), Tanh(), Softplus(), MaxPool2d(2)], ids=str
)
def test_nan_and_infinity_appear_where_they_do_in_the_reference(layer):
    nonfinite_where_the_reference_is(CPU, layer)


def test_the_winner_of_a_window_of_forty_thousand_pixels_is_found():
    """A window of more than 32767 pixels has int32 winners; int16 would wrap around."""
    rng, window = np.random.default_rng(0), (200, 200)
    x, rx = (rng.standard_normal((1, 2, 3, 200, 200)) for _ in range(2))
    y, ry, dx = np.empty((1, 2, 3, 1, 1)), np.empty((1, 2, 3, 1, 1)), np.empty_like(x)
    winner = np.empty(y.shape, np.int32)
    CPU.max_pool2d_forward(y, winner, x, window, window)
    CPU.max_pool2d_gather(ry, winner, rx, window, window)
    CPU.max_pool2d_backward(dx, winner, np.ones_like(y), window, window)
    flat = x.reshape(6, -1)
    assert winner.ravel().tolist() == flat.argmax(1).tolist() and winner.max() > 32767
    assert np.array_equal(y.ravel(), flat.max(1))
    assert np.array_equal(ry.ravel(), rx.reshape(6, -1)[range(6), flat.argmax(1)])
    assert dx.sum() == 6 and (dx.reshape(6, -1)[range(6), flat.argmax(1)] == 1).all()


def test_arrays_in_any_order_of_memory_and_read_only_give_the_same_bits():
    same_bits_from_any_order_of_memory(CPU)


def test_complex_numbers_are_refused_with_a_hint():
    x = np.zeros((1, 1, 2, 3, 3), complex)
    with pytest.raises(
        TypeError, match=r"float32 and float64, got complex128; refmaml.kernels.reference\(\)"
    ):
        ReLU().forward(CPU, {}, x)


def test_auto_takes_the_cpu_kernels_where_numba_is_there_and_the_reference_where_not(monkeypatch):
    assert kernels.auto().name == "cpu"
    monkeypatch.setattr("refmaml.kernels.factories.importable", lambda module: False)
    assert kernels.auto().name == "reference"
    with pytest.raises(ImportError, match="pip install numba"):
        kernels.cpu()
