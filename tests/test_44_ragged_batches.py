"""Tasks of different sizes in one batch: the bits are those of each task alone."""

import numpy as np
import pytest
from weighted_and_ragged import (
    METHODS,
    SIZES,
    WEIGHTS,
    alone,
    context_net,
    image_net,
    images,
    lists,
    name_of,
    summed,
    whole,
)

import refmaml as rm
from refmaml.errors import ArgumentError

pytestmark = pytest.mark.slow

TASKS = range(len(SIZES))


def agree(net, method, meta, arrays, weights=None):
    """Assert that loss, accuracy, gradient, report and phi are those of tasks alone."""
    batch = rm.Batch(*arrays, weights)
    dtype = meta.dtype.type
    out = method.meta_gradient(net, meta, batch)
    singles = [method.meta_gradient(net, meta, alone(arrays, t)) for t in range(len(batch))]
    w = np.ones(len(batch)) if weights is None else weights
    assert out.grad.dtype == dtype and np.array_equal(out.grad, summed(singles, w, dtype))
    assert list(out.task_losses) == [one.loss for one in singles]
    if out.task_accuracies is not None:
        assert list(out.task_accuracies) == [one.accuracy for one in singles]
    for name, values in out.report.items():
        assert list(values) == [one.report[name][0] for one in singles]
    phi = method.adapt(net, meta, *batch.sets[0])
    for t in range(len(batch)):
        assert np.array_equal(phi[t], method.adapt(net, meta, *alone(arrays, t).sets[0])[0])
    return out


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_every_method_has_the_bits_of_each_task_alone(method, kernels):
    net = context_net(kernels)
    agree(net, method, method.init(net, net.init(0, float)), lists(), WEIGHTS)
    agree(net, method, method.init(net, net.init(0)), lists(dtype=np.float32))


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_images_with_batch_norm_have_the_bits_of_each_task_alone(kernels, dtype):
    net = image_net(kernels)
    arrays = images(SIZES, [(6, 6)] * 5, dtype)
    agree(net, rm.MAML(0.3, 2), net.init(0, dtype), arrays)
    sides = [(6, 6), (7, 5), (6, 6), (4, 4), (7, 5)]  # pictures of other sizes as well
    agree(net, rm.FirstOrderMAML(0.3, 2), net.init(0, dtype), images(SIZES, sides, dtype))


@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_traces_come_in_task_order(chunk):
    net, arrays = context_net(), lists()
    for method in (rm.MAML(0.3, 2), rm.IMAML(2.0, 3, cg_steps=30, cg_tol=1e-3)):
        theta = net.init(0, float)
        out = method.meta_gradient(net, theta, rm.Batch(*arrays), trace=True, chunk=chunk)
        for t in TASKS:
            one = method.meta_gradient(net, theta, alone(arrays, t), trace=True)
            for name, steps in one.trace.items():
                last = len(steps) - 1  # conjugate gradients may end earlier in some tasks
                for k, a in enumerate(out.trace[name]):
                    assert np.array_equal(a[t], steps[min(k, last)][0]), (name, k, t)


def test_a_trace_over_chunks_of_tasks_that_end_at_different_steps():
    net, batch = context_net(), whole(5)
    method = rm.IMAML(2.0, 3, cg_steps=30, cg_tol=1e-3)
    theta = net.init(0, float)
    at_once = method.meta_gradient(net, theta, batch, trace=True).trace
    one_by_one = method.meta_gradient(net, theta, batch, trace=True, chunk=1).trace
    lengths = {
        len(method.meta_gradient(net, theta, batch[t : t + 1], trace=True).trace["cg_residuals"])
        for t in range(5)
    }
    assert len(lengths) > 1 and list(at_once) == list(one_by_one)
    for name, steps in at_once.items():
        for a, b in zip(steps, one_by_one[name], strict=True):
            assert np.array_equal(np.broadcast_to(a, b.shape), b), name


@pytest.mark.parametrize("method", [rm.MAML((0.3, 0.2), 2, rule=rm.SGD(momentum=0.9))])
def test_hypergradients_are_means_over_tasks_of_any_size(method):
    net, arrays = context_net(), lists()
    theta = net.init(0, float)
    out = method.meta_gradient(net, theta, rm.Batch(*arrays, WEIGHTS), hyper=True)
    singles = [method.meta_gradient(net, theta, alone(arrays, t), hyper=True).hyper for t in TASKS]
    assert out.hyper and not out.trace
    for name, value in out.hyper.items():
        rows = np.array([w * one[name] for w, one in zip(WEIGHTS, singles, strict=True)])
        assert np.allclose(value, rows.mean(axis=0), rtol=1e-13, atol=0), name


def test_losses_and_gradients_of_lists_have_the_bits_of_each_task_alone():
    net, (x, y, _, _) = context_net("cpu"), lists()
    theta = net.init(0, float)
    rows = theta * np.arange(1.0, 6.0)[:, None]
    for w in (theta[None], rows):
        loss, grad = net.loss(w, x, y), net.gradient(w, x, y)
        for t in TASKS:
            own = w[t : t + 1] if len(w) > 1 else w
            assert loss[t] == net.loss(own, x[t][None], y[t][None])[0]
            assert np.array_equal(grad[t], net.gradient(own, x[t][None], y[t][None])[0])
    with pytest.raises(ArgumentError, match="^w: expected a row for each of 5 tasks, or one"):
        net.loss(rows[:2], x, y)


def test_the_gradient_is_the_complex_steps_derivative_of_the_loss():
    net, batch, method = context_net(), rm.Batch(*lists(), WEIGHTS), rm.MAML(0.3, 3)
    theta, h = net.init(0, float), 1e-30
    v = np.random.default_rng(2).standard_normal(theta.shape)
    step = method.meta_gradient(net, theta + 1j * h * v, batch).loss.imag / h
    slope = method.meta_gradient(net, theta, batch).grad @ v
    assert abs(slope - step) <= 1e-12 * abs(step)


# ---- a GPU, and PyTorch --------------------------------------------------------------


@pytest.mark.parametrize("method", [rm.MAML(0.3, 2), rm.IMAML(2.0, 3)], ids=name_of)
def test_lists_go_to_the_gpu_group_by_group(cupy, on_cupy, method):
    net, batch = context_net(on_cupy), rm.Batch(*lists(), WEIGHTS)
    theta = net.init(0, float)
    exact = method.meta_gradient(context_net(), theta, batch)
    out = method.meta_gradient(net, theta, batch, trace=True)
    assert type(out.grad) is np.ndarray and type(out.trace["phi"][-1]) is np.ndarray
    assert abs(out.grad - exact.grad).max() <= 1e-10 * abs(exact.grad).max()
    assert abs(out.task_losses - exact.task_losses).max() <= 1e-12
    (there,) = on_cupy.to_device(theta)
    away = rm.Batch(*(on_cupy.to_device(*a) for a in batch.arrays), WEIGHTS)
    on_gpu = method.meta_gradient(net, there, away)
    assert isinstance(on_gpu.grad, cupy.ndarray) and np.array_equal(on_gpu.grad.get(), out.grad)
    phi = method.adapt(net, there, *away.sets[0])
    assert isinstance(phi, cupy.ndarray) and np.array_equal(
        phi.get(), method.adapt(net, theta, *batch.sets[0])
    )
    assert np.array_equal(
        net.loss(theta[None], *batch.sets[0]), net.loss(there[None], *away.sets[0]).get()
    )


def test_a_graph_refuses_tasks_of_different_sizes(cupy, on_cupy):
    from refmaml.execution.recorded_gradient import RecordedGradient

    net = context_net(on_cupy)
    with pytest.raises(ArgumentError, match="^batch: expected tasks of one size"):
        RecordedGradient(rm.MAML(0.3), net, net.init(0, float), rm.Batch(*lists()))


@pytest.mark.frameworks("torch")
def test_pytorch_agrees_on_tasks_of_different_sizes():
    import torch

    sizes = [(4, 6), (9, 3), (5, 5)]
    net = rm.mlp((3, 8, 2), activation="tanh")
    theta, arrays = net.init(0, float), lists(sizes)
    out = rm.MAML(0.3, 2).meta_gradient(net, theta, rm.Batch(*arrays))
    params = [torch.tensor(a, requires_grad=True) for a in net.named(theta).values()]

    def loss(p, x, y):
        z = torch.tanh(x @ p[0].T + p[1]) @ p[2].T + p[3]
        return ((z - y) ** 2).mean()

    losses = []
    for task in zip(*arrays, strict=True):
        xs, ys, xq, yq = map(torch.from_numpy, task)
        phi = params
        for _ in range(2):
            grads = torch.autograd.grad(loss(phi, xs, ys), phi, create_graph=True)
            phi = [p - 0.3 * g for p, g in zip(phi, grads, strict=True)]
        losses.append(loss(phi, xq, yq))
    total = torch.stack(losses).mean()
    truth = np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(total, params)])
    assert abs(out.grad - truth).max() <= 1e-11 * abs(truth).max()
    assert abs(out.task_losses - torch.stack(losses).detach().numpy()).max() <= 1e-11
