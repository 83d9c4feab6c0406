"""Dropout, softmax and the losses recorded on a GPU, where targets are checked late."""

import numpy as np
import pytest
from cuda_shim.build import ABSENT

import refmaml as rm
from refmaml.execution.recorded_gradient import RecordedGradient
from refmaml.oracles import cases
from refmaml.oracles.tolerance import relative_error, tolerance

METHOD = rm.MAML(0.3, 2)


@pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
@pytest.mark.parametrize(
    "loss",
    [
        rm.CrossEntropy(),
        rm.BCEWithLogits(pos_weight=(1, 2, 3, 4)),
        rm.Huber(delta=0.3),
        rm.GaussianNLL(full=True),
        rm.BoundedGaussianNLL(),
        rm.WeightedCrossEntropy(label_smoothing=0.1, weight=(1, 2, 0.5, 1)),
    ],
    ids=str,
)
def test_recorded_on_a_gpu_nothing_is_copied_and_the_result_is_the_same(cupy, on_cupy, loss):
    """Dropout, softmax and the losses are written with the module of the arrays."""
    layers = [rm.GELU(), rm.Dropout(0.3), rm.Linear(16, 16), rm.LogSoftmax(), rm.ELU(0.4),
              rm.Linear(16, 16), rm.Softmax(), rm.SiLU(), rm.Linear(16, 4)]  # fmt: skip
    net = rm.Sequential([rm.Linear(3, 16), *layers], loss, (3,))
    theta, batch, _ = cases.method_case(net, [0.3] * 2)
    recorded = RecordedGradient(METHOD, net.with_kernels(on_cupy), 0 * theta, batch)
    cupy.gpu.counts.clear()
    out, truth = recorded(theta, batch), METHOD.meta_gradient(net, theta, batch)
    assert cupy.gpu.counts["to the GPU"] == 1
    assert relative_error(out.grad, truth.grad) <= tolerance(float, 1000)
    assert np.allclose(out.task_losses, truth.task_losses, rtol=1e-12)


@pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
def test_the_cosine_head_and_drop_block_are_recorded(cupy, on_cupy):
    layers = [rm.Conv2d(1, 3, 2), rm.DropBlock2d(0.3, block_size=2), rm.Flatten()]
    net = rm.Sequential([*layers, rm.CosineLinear(36, 3)], rm.CrossEntropy(), (1, 4, 5))
    theta, batch, _ = cases.method_case(net, [0.3] * 2)
    recorded = RecordedGradient(METHOD, net.with_kernels(on_cupy), 0 * theta, batch)
    cupy.gpu.counts.clear()
    out, truth = recorded(theta, batch), METHOD.meta_gradient(net, theta, batch)
    assert cupy.gpu.counts["to the GPU"] == 1
    assert relative_error(out.grad, truth.grad) <= tolerance(float, 1000)


@pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
@pytest.mark.parametrize(
    "loss,bad,message",
    [
        (rm.BCEWithLogits(), 1.5, r"y: expected targets in \[0, 1\] .* 1.5"),
        (rm.WeightedCrossEntropy(), 7, "y: expected labels in 0..2, got a label 7"),
    ],
    ids=str,
)
def test_a_bad_target_on_the_gpu_is_found_after_a_replay(cupy, on_cupy, loss, bad, message):
    net = rm.Sequential([rm.Linear(3, 3)], loss, (3,))
    theta, batch, _ = cases.method_case(net, [0.3] * 2)
    recorded = RecordedGradient(METHOD, net.with_kernels(on_cupy), theta, batch)
    there = rm.Batch(*on_cupy.to_device(*(a for pair in batch.sets for a in pair)))
    y = batch.y_query.copy()
    y[1, 0] = bad
    with pytest.raises(rm.ArgumentError, match=message):
        recorded(theta, rm.Batch(there.x_support, there.y_support, there.x_query, cupy.asarray(y)))
