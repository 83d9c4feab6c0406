"""The convolutions of cuDNN in the bench, computed by PyTorch on the CPU."""

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.bench.gpu import cudnn_grouped
from refmaml.bench.kernel_calls import examples, record_calls

TASKS = 2


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize(
    "layer",
    [rm.Conv2d(2, 3, 3, padding=1), rm.Conv2d(2, 3, 3, stride=2, padding="same")],
    ids=["even", "uneven"],
)
@pytest.mark.parametrize("kernel", cudnn_grouped.KERNELS)
def test_the_library_computes_the_same_convolution(kernel, layer):
    import torch

    call = call_of_layer(kernel, layer)
    sizes = cudnn_grouped.extents(call, TASKS)
    service = cudnn_grouped.ConvolutionService("cuDNN", "cpu")
    *arrays, padding = service.arrays(sizes)
    value = service.operation(kernel, sizes, padding, TASKS)(*arrays)
    assert service.error(value, kernel, sizes, arrays, padding) < 1e-6
    assert service.error(1.01 * value, kernel, sizes, arrays, padding) > 1e-3
    out = reference_output(kernel, sizes, *arrays, padding)
    assert np.abs(task_first(value, kernel, out.shape) - out).max() < 1e-5 * np.abs(out).max()
    assert torch.backends.cudnn.benchmark


def call_of_layer(kernel, layer):
    """The recorded call of a kernel by `layer` in a small net."""
    side = layer.output_shape((2, 6, 6))[1]
    layers = [rm.Conv2d(1, 2, 1), layer, rm.Flatten(), rm.Linear(3 * side**2, 2)]
    net = rm.Sequential(layers, input_shape=(1, 6, 6))
    calls = record_calls("n", net, *examples(net, 2, 3), kernels.reference())
    return next(
        c for c in calls if c.kernel == kernel and cudnn_grouped.extents(c, TASKS).w[1] == 3
    )


def reference_output(kernel, sizes, x, w, dy, padding):
    """The output of the reference kernel, tasks first, in float64."""
    T, N, C = sizes.x[:3]

    def images(a, channels):
        a = a.double().numpy().reshape(N, T, channels, *a.shape[2:])
        return np.moveaxis(a, 1, 0)

    x, y = images(x, C), images(dy, sizes.y[2])
    w = w.double().numpy().reshape(T, *sizes.w[1:])
    out, inputs = {
        "conv2d_forward": (y, (x, w)),
        "conv2d_backward_x": (x, (y, w)),
        "conv2d_backward_w": (w, (x, y)),
    }[kernel]
    out, borders = np.empty_like(out), tuple((p, p) for p in padding)
    kernels.reference().functions[kernel](out, *inputs, sizes.stride, borders)
    return out


def task_first(value, kernel, shape):
    """The library's output in the memory order of refmaml's kernels."""
    value, (T, N) = value.double().numpy(), shape[:2]
    if kernel == "conv2d_backward_w":
        return value.reshape(shape)
    return np.moveaxis(value.reshape(N, T, *shape[2:]), 1, 0)
