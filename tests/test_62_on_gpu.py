"""Meta-gradients on arrays of a GPU agree with the reference kernels.

On the stand-in for CuPy, with the CUDA kernels compiled by g++. Nothing is copied or
waited for except where stated.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from gpu_cases import METHODS, STEPS, case, counted, name_of, reads_and_sends

import refmaml as rm
from refmaml.oracles.method_checks import method_terms
from refmaml.oracles.tolerance import relative_error, tolerance

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(cupy, on_cupy, method):
    net, meta, batch = case(method)
    exact, gpu_net = method.meta_gradient(net, meta, batch), net.with_kernels(on_cupy)
    (gpu_meta,) = on_cupy.to_device(meta)
    method.meta_gradient(gpu_net, gpu_meta, batch)  # sends the mask of adapted parameters
    counted(cupy)
    out = method.meta_gradient(gpu_net, gpu_meta, batch)
    seen, (more, sent) = counted(cupy), reads_and_sends(method)
    assert (
        1 <= seen["to the GPU"] <= 1 + sent
        and 1 <= seen["to the host"] <= 1 + more
        and "wait" not in seen
    ), seen
    assert isinstance(out.grad, cupy.ndarray)
    limit = tolerance(np.float64, method_terms(method, net, batch))
    assert relative_error(out.grad.get(), exact.grad) <= limit and abs(
        out.loss - exact.loss
    ) <= limit * abs(exact.loss)
    assert out.accuracy == exact.accuracy and list(out.report) == list(exact.report)
    assert out.task_losses.dtype == exact.task_losses.dtype and type(out.task_losses) is np.ndarray
    for name, value in exact.report.items():
        # A residual is a difference of values that agree to 1e-13: six digits remain.
        texts = value.dtype.kind == "U"
        assert (
            np.array_equal(out.report[name], value)
            if texts
            else relative_error(out.report[name], value) <= 1e-6
        ), name


@pytest.mark.parametrize(
    "method", [rm.MAML(**STEPS), rm.MetaSGD(**STEPS), rm.CAVIA(**STEPS)], ids=name_of
)
def test_numpy_in_is_numpy_out_with_the_same_bits_and_traces_too(cupy, on_cupy, method):
    net, meta, batch = case(method)
    gpu_net, (gpu_meta, *arrays) = (
        net.with_kernels(on_cupy),
        on_cupy.to_device(meta, *(a for part in batch.sets for a in part)),
    )
    from_numpy = method.meta_gradient(gpu_net, meta, batch, trace=True)
    from_gpu = method.meta_gradient(gpu_net, gpu_meta, rm.Batch(*arrays), trace=True)
    assert type(from_numpy.grad) is np.ndarray and np.array_equal(
        from_numpy.grad, from_gpu.grad.get()
    )
    exact = method.meta_gradient(net, meta, batch, trace=True)
    for name, steps in exact.trace.items():
        for a, b, c in zip(steps, from_numpy.trace[name], from_gpu.trace[name], strict=True):
            assert (
                type(b) is np.ndarray
                and np.array_equal(b, c.get())
                and relative_error(b, a) <= 1e-12
            )
    counted(cupy)
    method.meta_gradient(gpu_net, meta, batch)
    assert counted(cupy) == {
        "to the GPU": 1,
        "to the host": 2,
    }  # theta with the batch; the gradient, and the small arrays
    method.meta_gradient(gpu_net, gpu_meta, rm.Batch(*arrays))
    assert counted(cupy) == {"to the host": 2}  # the range of the labels, and the small arrays


def test_the_chunk_changes_no_bit(cupy, on_cupy):
    method = rm.MAMLPlusPlus(**STEPS)
    net, meta, batch = case(method)
    batch = rm.Batch(*(np.repeat(a, 2, axis=0) for part in batch.sets for a in part))
    grads = [
        method.meta_gradient(net.with_kernels(on_cupy), meta, batch, chunk=chunk).grad
        for chunk in (None, 3, 1)
    ]
    assert all(np.array_equal(grads[0], g) for g in grads)


def test_one_read_too_many_is_found(cupy, on_cupy):
    """Planted error: a kernel that reads one of its numbers on the host."""

    def linear_forward(y, x, w):
        on_cupy.linear_forward(y, x, w)
        assert float(y[0, 0, 0]) < 1e9

    with pytest.raises(AssertionError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(
            cupy, on_cupy.replace(linear_forward=linear_forward), METHODS[0]
        )


def test_a_copy_too_many_is_noticed(cupy, on_cupy):
    """Planted error: a kernel that copies its weights to the host."""

    def linear_forward(y, x, w):
        on_cupy.linear_forward(y, x, cupy.asarray(w.get()))

    with pytest.raises(AssertionError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(
            cupy, on_cupy.replace(linear_forward=linear_forward), METHODS[0]
        )


def test_an_implicit_conversion_is_noticed(cupy, on_cupy):
    """Planted error: a method that calls a NumPy function."""

    @dataclass(frozen=True)
    class Careless(rm.MAML):
        def start(self, net, meta):
            phi, rates = super().start(net, meta)
            return phi, [np.multiply(1, A) for A in rates]

    with pytest.raises(TypeError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(
            cupy, on_cupy, Careless(**STEPS)
        )
