"""Tasks of different sizes in one batch: the bits are those of each task alone."""

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from rank_threads import on_ranks
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
from refmaml.training import SGD, Recipe, Schedule, evaluate, train
from refmaml.training.distributed import SINGLE_PROCESS

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


# ---- the batch itself ----------------------------------------------------------------


def test_a_batch_of_lists_is_sliced_cast_copied_and_pickled_like_any_batch():
    batch = rm.Batch(*lists(), WEIGHTS)
    assert type(batch) is rm.RaggedBatch and isinstance(batch, rm.Batch) and len(batch) == 5
    assert [places for places, _ in batch.groups] == [[0, 3], [1, 4], [2]]
    assert all(type(group) is rm.Batch for _, group in batch.groups)
    assert np.array_equal(batch.groups[1][1].weights, WEIGHTS[[1, 4]])
    part = batch[1:3]
    assert len(part) == 2 and part.x_support[0] is batch.x_support[1]
    assert np.array_equal(part.weights, WEIGHTS[1:3])
    for twin in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert twin == batch and type(twin) is rm.RaggedBatch
    assert batch != part and batch != rm.Batch(*lists(), WEIGHTS + 1) and batch != whole(5)
    assert whole(5) != batch and batch != rm.Batch(*lists(seed=1), WEIGHTS) and batch != 3
    single = batch.astype(np.float32)
    assert {a.dtype for a in single.each} == {np.dtype(np.float32)} and single != batch
    assert batch.nbytes == 2 * single.nbytes == sum(a.nbytes for a in batch.each)
    labels = rm.Batch(*images(SIZES, [(4, 4)] * 5)).astype(np.float32)
    assert labels.y_query[0].dtype == np.int64
    with pytest.raises(TypeError, match="unhashable"):
        hash(batch)
    with pytest.raises(ArgumentError, match="^dtype"):
        batch.astype(int)


def test_lists_of_tasks_of_one_size_have_the_bits_of_an_ordinary_batch():
    net, arrays = context_net("cpu"), lists([(5, 6)] * 4)
    theta, method = net.init(0, float), rm.MAML(0.3, 2)
    a = method.meta_gradient(net, theta, rm.Batch(*arrays))
    b = method.meta_gradient(net, theta, whole(4))
    assert a.grad.tobytes() == b.grad.tobytes() and a.loss == b.loss


X, Y, XQ, YQ = lists()
SHORT = "expected a list of arrays (examples, ...), one for each task, got 4 of them for 5 tasks"
REFUSED = {
    "y too short": ((X, Y[:4], XQ, YQ), f"y_support: {SHORT}"),
    "query too short": ((X, Y, XQ, YQ[:4]), f"y_query: {SHORT}"),
    "no task": (([], [], [], []), "x_support: expected at least one task, got an empty list"),
    "an array": ((X, Y, whole(5).x_query, YQ), "x_query: expected a list of arrays"),
    "a list of a list": (([*X[:4], X[4].tolist()], Y, XQ, YQ), "got list in task 4"),
    "a number": (([X[0], 3.0, *X[2:]], Y, XQ, YQ), "got float in task 1"),
    "strings": (([X[0], X[1].astype(str), *X[2:]], Y, XQ, YQ), "got dtype <U32 in task 1"),
    "masked": ((X, Y, [np.ma.array(a) for a in XQ], YQ), "without a mask"),
    "other features": ((X, Y, [*XQ[:3], XQ[3][:, :2], XQ[4]], YQ), "in task 3"),
    "weights": ((X, Y, XQ, YQ, WEIGHTS[:4]), "weights: expected an array (5,)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_lists_that_do_not_fit_are_refused_in_one_line(name):
    arrays, text = REFUSED[name]
    with pytest.raises(ArgumentError) as caught:
        rm.Batch(*arrays)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_what_the_net_cannot_take_is_refused_with_the_task():
    net, theta = context_net(), context_net().init(0, float)
    method = rm.MAML(0.3)
    with pytest.raises(ArgumentError, match="^y: .* in task 2$"):
        y = [*Y[:2], Y[2][:3], *Y[3:]]
        method.meta_gradient(net, theta, rm.Batch(X, y, XQ, YQ))
    with pytest.raises(ArgumentError, match="^y: .* in task 4$"):  # of a group with task 1
        arrays = images(SIZES, [(4, 4)] * 5)
        arrays[1][4][0] = 7  # a label that the net has no output for
        image = image_net()
        method.meta_gradient(image, image.init(0, float), rm.Batch(*arrays))
    with pytest.raises(ArgumentError, match="^y: expected a list .* got 4 of them for 5 tasks"):
        method.adapt(net, theta, X, Y[:4])
    with pytest.raises(ArgumentError, match="^y: expected a list of arrays .*, got ndarray"):
        net.loss(theta[None], X, Y[0])
    with pytest.raises(ArgumentError, match="^inner_batch"):
        rm.Reptile(0.1, inner_batch=5).meta_gradient(net, theta, rm.Batch(*lists()))


def test_numbers_that_are_not_finite_are_named_with_the_task():
    net, theta = context_net(), context_net().init(0, float)
    y = [*Y[:4], Y[4] * 1e200]
    with pytest.raises(rm.NonFiniteError, match="in task 4$") as caught:
        rm.MAML(0.1, 2).meta_gradient(net, theta, rm.Batch(X, y, XQ, YQ))
    assert caught.value.task == 4
    weights = np.full(5, 1e308)
    with pytest.raises(rm.NonFiniteError, match="^meta-gradient"):
        rm.ERM().meta_gradient(net, theta, rm.Batch(*lists(), weights))


# ---- support and query images of different sizes -------------------------------------


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
@pytest.mark.parametrize("method", [rm.MAML(0.3, 2), rm.FirstOrderMAML(0.3), rm.IMAML(2.0)])
def test_query_images_may_have_another_size_where_the_net_takes_both(method, kernels):
    rng, net = np.random.default_rng(3), image_net()
    x, y = rng.standard_normal((2, 4, 1, 6, 6)), rng.integers(0, 2, (2, 4))
    batch = rm.Batch(x, y, rng.standard_normal((2, 3, 1, 9, 5)), y[:, :3])
    theta, h = net.init(0, float), 1e-30
    v = rng.standard_normal(theta.shape)
    slope = method.meta_gradient(net, theta, batch).grad @ v
    if isinstance(method, rm.MAML):
        step = method.meta_gradient(net, theta + 1j * h * v, batch).loss.imag / h
        assert abs(slope - step) <= 1e-12 * abs(step)
    other = method.meta_gradient(image_net(kernels), theta, batch).grad @ v
    assert abs(other - slope) <= 1e-10 * abs(slope)


def test_a_net_with_a_flat_head_refuses_query_images_of_another_size():
    net = rm.Sequential([rm.Flatten(), rm.Linear(16, 2)])
    x, y = np.zeros((1, 2, 1, 4, 4)), np.zeros((1, 2), int)
    batch = rm.Batch(x, y, np.zeros((1, 2, 1, 5, 5)), y)
    with pytest.raises(ArgumentError, match="Linear: expected"):
        rm.MAML(0.1).meta_gradient(net, net.init(0, float), batch)
    with pytest.raises(ArgumentError, match="^x_query"):
        rm.Batch(x, y, np.zeros((1, 2, 3, 4, 4)), y)  # other channels


def test_query_examples_one_by_one_need_the_size_of_the_support_images():
    net, y = image_net(), np.zeros((2, 3), int)
    batch = rm.Batch(np.ones((2, 3, 1, 4, 4)), y, np.ones((2, 3, 1, 5, 5)), y)
    with pytest.raises(ArgumentError, match="^transductive"):
        evaluate(net, rm.MAML(0.1), net.init(0, float), lambda t: batch, 2, transductive=False)


# ---- training and evaluation ---------------------------------------------------------


def trained(ranks=SINGLE_PROCESS):
    mine = ranks.my_tasks(5)
    part = slice(mine.start, mine.stop)

    def sample(step):
        return rm.Batch(*lists(seed=step), WEIGHTS)[part] if mine else None

    recipe = Recipe(context_net(), rm.MAML(0.1), SGD(), Schedule(1e-2), sample, None, ranks)
    return train(recipe, recipe.start(recipe.net.init(0, float)), steps=3)


def test_training_takes_tasks_of_different_sizes_on_any_number_of_ranks():
    now, net, meta = trained(), context_net(), context_net().init(0, float)
    for step in range(3):
        out = rm.MAML(0.1).meta_gradient(net, meta, rm.Batch(*lists(seed=step), WEIGHTS))
        assert now.rows[step].loss == out.loss
        meta = meta - 1e-2 * out.grad
    assert abs(now.meta - meta).max() <= 1e-15
    expected = now.meta.tobytes()
    assert on_ranks(2, lambda ranks: trained(ranks).meta.tobytes()) == [expected] * 2


@pytest.mark.parametrize("transductive", [True, False])
def test_an_evaluation_of_lists_has_the_values_of_each_task_alone(transductive):
    net, arrays = context_net(), lists()
    theta, method = net.init(0, float), rm.MAML(0.1)

    def sample(tasks):
        return rm.Batch(*arrays)[tasks.start : tasks.stop]

    values = evaluate(net, method, theta, sample, 5, 3, transductive).values
    singles = [
        evaluate(net, method, theta, lambda tasks, t=t: alone(arrays, t), 2, 1, transductive)
        for t in TASKS
    ]
    assert list(values) == [one.values[0] for one in singles]


# ---- on a GPU, in the doctor, and against PyTorch ------------------------------------


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


@pytest.mark.parametrize(
    "batch",
    [rm.Batch(*lists()), whole(5, WEIGHTS), [(1, 2, 3, 4)]],
    ids=["sizes", "weights", "no batch"],
)
def test_the_doctor_refuses_what_it_would_ignore(batch):
    net = rm.mlp((3, 4, 2), activation="tanh")
    with pytest.raises(ArgumentError, match="^batch: expected"):
        rm.check_meta_gradient(lambda params, batch: params, rm.MAML(0.1), net=net, batch=batch)


def test_the_guide_to_ones_own_tasks_runs_as_written(tmp_path, monkeypatch):
    from PIL import Image

    for name in ("ant", "bee", "cat", "dog", "elk"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 30), (20 * i, 0, 0)).save(
                tmp_path / "pictures" / name / f"{i}.png"
            )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    guide = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    exec("\n".join(blocks), {})


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
