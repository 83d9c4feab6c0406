"""The CUDA kernels on the CPU, through g++ and fibers, against the reference kernels.

In both precisions and in three schedules of threads.
"""

import numpy as np
import pytest
from cuda_shim.build import ABSENT, kernel_names
from cuda_shim.kernels import run_everything, texts
from kernel_passes import (
    CUDA_CASES,
    DEEP,
    PRECISIONS,
    REFERENCE,
    TILES,
    TINY,
    draws,
    gradients,
    loss_passes,
    nonfinite_where_the_reference_is,
    passes,
    same_bits_from_any_order_of_memory,
    worst,
)
from vector_passes import same_bits_of_a_sum_beside_other_rows, vectors_passes, worst_dot

from refmaml import kernels
from refmaml.kernels.cuda_runtime.launcher import VERSIONS, Launcher, parts_of
from refmaml.kernels.discovery import collect, fusions
from refmaml.layers import Conv2d, CrossEntropy, LeakyReLU, Linear, MaxPool2d, ReLU, Softplus, Tanh
from refmaml.oracles import cases
from refmaml.oracles.kernel_checks import method_kernel_check
from refmaml.oracles.tolerance import relative_error, tolerance

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))


def test_the_set_has_the_kernels_of_the_reference_and_the_fused_ones(cuda):
    assert (
        set(cuda.functions) == set(REFERENCE.functions) | set(collect("reference", fusions())[0])
        and cuda.name == "cuda"
    )


@pytest.mark.parametrize("case", CUDA_CASES, ids=str)
def test_every_pass_of_every_layer_agrees_with_the_reference(cuda, case):
    for dtype in PRECISIONS:
        for tasks, shared in (
            ((3, False), (2, True), (1, False)) if case not in (*TILES, *DEEP) else ((2, False),)
        ):
            fraction, name = worst(case, cuda, *draws(case, tasks, shared, dtype))
            assert fraction <= 1, f"{name}: {fraction} of the tolerance"


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS[:-1])
@pytest.mark.parametrize(
    "case", [case for case in CUDA_CASES if isinstance(case.layer, (Conv2d, Linear))], ids=str
)
def test_earlier_versions_of_the_products_agree_with_the_reference_too(device, case, version):
    for dtype in PRECISIONS:
        fraction, name = worst(
            case, kernels.cuda(device, version), *draws(case, 2, case in TINY, dtype)
        )
        assert fraction <= 1, f"{name}: {fraction} of the tolerance"


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("loss", cases.LOSSES, ids=str)
def test_every_pass_of_every_loss_agrees_with_the_reference(cuda, loss, dtype):
    for a, b in zip(
        loss_passes(loss, REFERENCE, dtype), loss_passes(loss, cuda, dtype), strict=True
    ):
        assert b.dtype == dtype and relative_error(b, a) <= tolerance(dtype, 16)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_arithmetic_on_vectors_has_the_bits_of_the_reference(cuda, dtype):
    truth = vectors_passes(REFERENCE, dtype, P=701)
    for name, value in vectors_passes(cuda, dtype, P=701).items():
        assert np.array_equal(value, truth[name]), name


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("P", [1, 127, 128 * 8 + 1, 5000])
def test_a_sum_over_a_row_is_exact_to_rounding_and_its_bits_do_not_depend_on_other_rows(
    cuda, dtype, P
):
    assert worst_dot(cuda, dtype, P=P) <= 1
    same_bits_of_a_sum_beside_other_rows(cuda, dtype, P)


@pytest.mark.slow
def test_every_kernel_of_every_file_was_run_in_both_precisions(device):
    """A kernel that no test launches would be unchecked."""
    run_everything(device)
    defined = {name for text in texts().values() for name in kernel_names(text)}
    assert {(name, np.dtype(d).name) for name in defined for d in PRECISIONS} == device.launched


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_whole_second_order_meta_gradient_agrees_with_the_reference(cuda, dtype):
    net, (method, _) = cases.conv_net().with_kernels(REFERENCE), cases.methods(inner_steps=1)[0]
    theta, batch, _ = cases.method_case(net, [method.inner_lr] * method.inner_steps)
    check = method_kernel_check(method, net, theta, batch, cuda, dtype)
    assert check.passed, check


@pytest.mark.parametrize(
    "layer", [ReLU(), LeakyReLU(0.2), Tanh(), Softplus(), MaxPool2d(2)], ids=str
)
def test_nan_and_infinity_appear_where_they_do_in_the_reference(cuda, layer):
    nonfinite_where_the_reference_is(cuda, layer)


def test_arrays_in_any_order_of_memory_and_read_only_give_the_same_bits(cuda):
    same_bits_from_any_order_of_memory(cuda)


def test_columns_beside_a_gradient_in_its_matrix_are_not_written(cuda):
    case = cases.LAYERS[0]
    w, _, x, _, dy, _ = draws(case, 3, False, np.float64)
    dw = gradients(case, 3, np.float64)
    case.layer.backward(cuda, dw, w, case.layer.forward(cuda, w, x)[1], dy)
    matrix = dw["weight"].base
    assert np.isnan(matrix[:, -1]).all() and not np.isnan(matrix[:, :-1]).any()


def test_complex_numbers_are_refused_and_the_error_names_the_reference_kernels(cuda):
    with pytest.raises(
        TypeError, match=r"float32 and float64, got complex128; refmaml.kernels.reference\(\)"
    ):
        ReLU().forward(cuda, {}, np.zeros((1, 1, 2, 3, 3), complex))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel", sorted(name for name in REFERENCE.functions if not name.startswith("vector_"))
)
def test_a_kernel_that_is_wrong_by_a_thousandth_is_caught(cuda, kernel):
    def wrong(out, *rest):
        cuda.functions[kernel](out, *rest)
        out *= out.dtype.type(1.001)

    candidate, dtype = cuda.replace(**{kernel: wrong}), np.float32
    if kernel.startswith(("cross_entropy", "squared_error")):
        assert any(
            relative_error(b, a) > tolerance(dtype, 16)
            for loss in cases.LOSSES
            for a, b in zip(
                loss_passes(loss, REFERENCE, dtype),
                loss_passes(loss, candidate, dtype),
                strict=True,
            )
        )
    else:
        assert any(
            worst(case, candidate, *draws(case, 2, False, dtype))[0] > 1 for case in cases.LAYERS
        )


def test_a_launch_of_too_many_tasks_is_refused(device):
    with pytest.raises(ValueError, match="vector_scale: expected at most 65535 tasks, got 65536"):
        a = np.zeros((65536, 1))
        Launcher(device).elements("vector", "vector_scale", [a], [a, a], 1)


def test_sums_are_divided_among_blocks_and_long_sums_among_more():
    """64 filters of 3 x 3 on 14 x 14 pixels: y of 5 images, dw of 5 and of 75.

    Then y of 7 x 7 pixels, and a sum that is too short for two blocks.
    """
    assert [
        parts_of(*product) for product in ((16, 576), (9, 980), (9, 14700), (4, 576), (1, 127))
    ] == [1, 2, 7, 4, 1]


class DeviceArray(np.ndarray):
    """Arrays of a device with a memory of its own."""


class SeparateDevice:
    """A device that accepts only its own arrays, as CuPy does."""

    def __init__(self, device):
        self.device, self.xp, self.empty = device, self, device.empty
        self.ndarray, self.ascontiguousarray = (
            DeviceArray,
            lambda a: np.ascontiguousarray(a).view(DeviceArray),
        )

    def asarray(self, a):
        return a.copy().view(DeviceArray)

    def asnumpy(self, a):
        return np.array(a)

    def launch(self, operation, kernel, dtype, grid, threads, arguments, shared):
        assert not any(type(a) is np.ndarray for a in arguments)
        self.device.launch(operation, kernel, dtype, grid, threads, arguments, shared)


@pytest.mark.parametrize("case", [cases.LAYERS[1], cases.LAYERS[7], cases.LAYERS[16]], ids=str)
def test_numpy_arrays_are_copied_to_the_device_and_back(cuda, device, case):
    inputs = draws(case, 3, True, np.float64)
    direct, copied = (
        passes(case, cuda, *inputs),
        passes(case, kernels.cuda(SeparateDevice(device), xp=np), *inputs),
    )
    assert all(np.array_equal(direct[name], copied[name]) for name in direct)


def test_an_unnamed_function_is_computed_by_its_own_callables(cuda):
    from refmaml.kernels.activation.functions import tanh

    x, y = np.linspace(-1, 1, 6).reshape(1, 2, 3), np.empty((1, 2, 3))
    cuda.activation_forward(y, x, tanh._replace(name=""))
    assert np.array_equal(y, np.tanh(x))


def test_labels_may_be_integers_of_any_width(cuda):
    z, labels = (
        np.random.default_rng(0).standard_normal((2, 3, 4)),
        np.array([[0, 3, 1], [2, 2, 0]]),
    )
    losses = [
        CrossEntropy().forward(cuda, z, labels.astype(dtype))[0]
        for dtype in (np.int64, np.int32, np.uint8)
    ]
    assert np.array_equal(losses[0], losses[1]) and np.array_equal(losses[0], losses[2])
