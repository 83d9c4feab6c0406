"""Batches of lists of arrays: slices, copies, casts, and what is refused."""

import copy
import pickle

import numpy as np
import pytest
from weighted_and_ragged import SIZES, WEIGHTS, context_net, image_net, images, lists, whole

import refmaml as rm
from refmaml.errors import ArgumentError


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


# ---- refusals ------------------------------------------------------------------------


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


@pytest.mark.parametrize("batch", [rm.Batch(*lists()), [(1, 2, 3, 4)]], ids=["sizes", "no batch"])
def test_the_doctor_refuses_what_it_would_ignore(batch):
    net = rm.mlp((3, 4, 2), activation="tanh")
    with pytest.raises(ArgumentError, match="^batch: expected"):
        rm.check_meta_gradient(lambda params, batch: params, rm.MAML(0.1), net=net, batch=batch)


def test_the_doctor_judges_a_batch_with_weights():
    net, method = rm.mlp((3, 4, 2), activation="tanh"), rm.MAML(0.1)

    def gradient(params, batch, weights=WEIGHTS):
        tasks = rm.Batch(*batch, weights)
        return net.named(method.meta_gradient(net, net.flat(params), tasks).grad)

    def verdict(fn):
        options = {"net": net, "batch": whole(5, WEIGHTS), "precision": "float64", "repeats": 0}
        return rm.check_meta_gradient(fn, method, **options).verdict

    assert verdict(gradient) == "right"
    assert verdict(lambda params, batch: gradient(params, batch, None)) == "wrong"
