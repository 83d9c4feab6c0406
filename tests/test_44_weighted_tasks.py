"""Weights of tasks: M = (1/T) sum_t w_t M_t."""

import copy
import pickle

import numpy as np
import pytest
from rank_threads import on_ranks
from weighted_and_ragged import METHODS, WEIGHTS, context_net, lists, name_of, summed, whole

import refmaml as rm
from refmaml.errors import ArgumentError
from refmaml.methods.meta_gradient import meta_gradient
from refmaml.training import Adam, Recipe, Schedule, train
from refmaml.training.distributed import SINGLE_PROCESS
from refmaml.training.optimizers import update


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_the_gradient_is_the_sum_of_weighted_gradients_of_single_tasks(method, dtype):
    net, batch = context_net(), whole(5, WEIGHTS).astype(dtype)
    meta = method.init(net, net.init(0, dtype))
    singles = [
        method.meta_gradient(net, meta, rm.Batch(*batch[t : t + 1].arrays)) for t in range(5)
    ]
    out = method.meta_gradient(net, meta, batch)
    assert np.array_equal(out.grad, summed(singles, WEIGHTS, dtype)) and out.grad.dtype == dtype
    plain = method.meta_gradient(net, meta, rm.Batch(*batch.arrays))
    assert np.array_equal(out.task_losses, plain.task_losses)  # no weights in these
    assert out.loss == (WEIGHTS.astype(dtype) * plain.task_losses).mean() != plain.loss
    assert not np.array_equal(out.grad, plain.grad)


def test_the_gradient_is_the_complex_steps_derivative_of_the_weighted_loss():
    net, batch, method = context_net(), whole(5, WEIGHTS), rm.MAML(0.3, 3)
    theta, h = net.init(0, float), 1e-30
    v = np.random.default_rng(2).standard_normal(theta.shape)
    step = method.meta_gradient(net, theta + 1j * h * v, batch).loss.imag / h
    slope = method.meta_gradient(net, theta, batch).grad @ v
    assert abs(slope - step) <= 1e-12 * abs(step)


@pytest.mark.parametrize(
    "method",
    [rm.MAML(0.3, 2), rm.MAML((0.3, 0.2), 2, rule=rm.SGD(momentum=0.9)), rm.IMAML(2.0, 3)],
    ids=["MAML", "momentum", "IMAML"],
)
def test_hypergradients_are_those_of_the_weighted_loss(method):
    net, batch = context_net(), whole(5, WEIGHTS)
    theta = net.init(0, float)
    out = method.meta_gradient(net, theta, batch, hyper=True)
    singles = [
        method.meta_gradient(net, theta, rm.Batch(*batch[t : t + 1].arrays), hyper=True).hyper
        for t in range(5)
    ]
    assert out.hyper
    for name, value in out.hyper.items():
        rows = np.array([w * one[name] for w, one in zip(WEIGHTS, singles, strict=True)])
        assert np.allclose(value, rows.mean(axis=0), rtol=1e-13, atol=0), name


@pytest.mark.parametrize("kernels", ["reference", "cpu"])
def test_weights_of_one_leave_all_bits_and_chunks_change_none(kernels):
    net, method = context_net(kernels), rm.MAML(0.3, 2)
    theta, batch = net.init(0), whole(5).astype(np.float32)
    plain = method.meta_gradient(net, theta, batch)
    ones = method.meta_gradient(net, theta, whole(5, np.ones(5)))
    assert plain.grad.tobytes() == ones.grad.tobytes() and plain.loss == ones.loss
    weighted = whole(5, WEIGHTS)
    outs = [method.meta_gradient(net, theta, weighted, chunk=c) for c in (None, 1, 2, 5)]
    assert len({(out.grad.tobytes(), float(out.loss)) for out in outs}) == 1


def test_weights_follow_the_tasks_of_a_batch():
    batch = whole(5, WEIGHTS)
    assert np.array_equal(batch[1:3].weights, WEIGHTS[1:3]) and batch[1:3] == batch[1:3]
    assert batch.astype(np.float32).weights.dtype == np.float32
    assert whole(5, np.arange(5)).astype(np.float32).weights.dtype == np.float32  # integers, too
    for twin in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert twin == batch
    assert batch != whole(5) and whole(5) != batch and batch != whole(5, WEIGHTS + 1)
    assert batch.nbytes == whole(5).nbytes + WEIGHTS.nbytes
    assert [name for name, _ in batch.named] == ["x_support", "y_support", "x_query", "y_query"]


@pytest.mark.parametrize(
    "weights",
    [
        [1.0, 2.0, 3.0, 4.0],
        np.ones(3),
        np.ones((4, 1)),
        np.ones(4) * 1j,
        np.array(["1"] * 4),
        np.ma.array(np.ones(4)),
        2.0,
    ],
    ids=str,
)
def test_other_weights_are_refused(weights):
    with pytest.raises(ArgumentError, match=r"^weights: expected an array \(4,\) of real numbers"):
        whole(4, weights)


def test_a_weight_that_is_not_finite_is_named_with_its_task():
    net = context_net()
    batch = whole(4, np.array([1.0, 1.0, np.nan, 1.0]))
    with pytest.raises(rm.NonFiniteError, match="meta-gradient.* in task 2"):
        meta_gradient(rm.MAML(0.3), net, net.init(0, float), batch)


# ---- training ------------------------------------------------------------------------


def recipe(sample, ranks=SINGLE_PROCESS):
    return Recipe(context_net(), rm.MAML(0.1), Adam(), Schedule(1e-2), sample, None, ranks)


def trained(sample, ranks=SINGLE_PROCESS):
    r = recipe(sample, ranks)
    return train(r, r.start(r.net.init(0, float)), steps=3)


def weighted(step):
    return whole(5, WEIGHTS + step)


def test_training_takes_the_weights_of_each_step():
    now, net, method, adam = trained(weighted), context_net(), rm.MAML(0.1), Adam()
    meta = net.init(0, float)
    state = recipe(weighted).start(meta).state
    for step in range(3):
        out = method.meta_gradient(net, meta, weighted(step))
        meta, state = update(net, adam, meta, out.grad, state, step + 1, 1e-2)
        assert now.rows[step].loss == out.loss
    assert np.array_equal(now.meta, meta)
    assert not np.array_equal(now.meta, trained(lambda step: whole(5)).meta)


def test_training_with_weights_has_the_same_bits_on_any_number_of_ranks():
    alone = trained(weighted).meta.tobytes()

    def on_rank(ranks):
        mine = ranks.my_tasks(5)
        part = slice(mine.start, mine.stop)
        return trained(lambda step: weighted(step)[part] if mine else None, ranks).meta.tobytes()

    assert on_ranks(2, on_rank) == [alone] * 2 and on_ranks(6, on_rank) == [alone] * 6


# ---- on a GPU, and against PyTorch ---------------------------------------------------


def test_weights_go_to_the_gpu_and_into_a_graph(cupy, on_cupy):
    from refmaml.execution.recorded_gradient import RecordedGradient

    method, net = rm.MAML(0.3, 2), context_net(on_cupy)
    theta = net.init(0, float)
    exact = method.meta_gradient(context_net(), theta, whole(4, WEIGHTS[:4]))
    out = method.meta_gradient(net, theta, whole(4, WEIGHTS[:4]))
    recorded = RecordedGradient(method, net, theta, whole(4, np.ones(4)))
    replayed = recorded(theta, whole(4, WEIGHTS[:4]))
    assert abs(out.grad - exact.grad).max() <= 1e-13 * abs(exact.grad).max()
    assert out.grad.tobytes() == replayed.grad.tobytes() and out.loss == replayed.loss
    assert abs(out.loss - exact.loss) <= 1e-13 * abs(exact.loss)
    with pytest.raises(ArgumentError, match="^batch: expected the shapes"):
        recorded(theta, whole(4))
    (there,) = on_cupy.to_device(WEIGHTS[:4])
    on_gpu = method.meta_gradient(net, theta, whole(4, there))
    assert on_gpu.grad.tobytes() == out.grad.tobytes() and on_gpu.loss == out.loss


@pytest.mark.frameworks("torch")
def test_weights_w_over_their_sum_are_t_w_over_w_sum_here():
    import torch

    net = rm.mlp((3, 8, 2), activation="tanh")
    theta, w = net.init(0, float), np.arange(1.0, 5.0)
    arrays = [np.stack(a) for a in lists([(5, 6)] * 4)]
    out = rm.MAML(0.3, 2).meta_gradient(net, theta, rm.Batch(*arrays, 4 * w / w.sum()))
    params = [torch.tensor(a, requires_grad=True) for a in net.named(theta).values()]

    def loss(p, x, y):
        z = torch.tanh(x @ p[0].T + p[1]) @ p[2].T + p[3]
        return ((z - y) ** 2).mean()

    losses = []
    for xs, ys, xq, yq in zip(*map(torch.from_numpy, arrays), strict=True):
        phi = params
        for _ in range(2):
            grads = torch.autograd.grad(loss(phi, xs, ys), phi, create_graph=True)
            phi = [p - 0.3 * g for p, g in zip(phi, grads, strict=True)]
        losses.append(loss(phi, xq, yq))
    total = (torch.stack(losses) * torch.from_numpy(w / w.sum())).sum()
    truth = np.concatenate([g.numpy().ravel() for g in torch.autograd.grad(total, params)])
    assert abs(out.grad - truth).max() <= 1e-11 * abs(truth).max()
    assert abs(out.loss - total.item()) <= 1e-11 * total.item()
