"""Batches: valid arguments, and those that raise a one-line error."""

import copy
import pickle

import numpy as np
import pytest
from refusals import refused

import refmaml as rm

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 5, 3)), RNG.standard_normal((2, 5, 2))


class Tensor:
    """What rm.Batch reads of a framework's tensor; the dtype is not NumPy's."""

    shape, ndim, dtype = (2, 5, 3), 3, "torch.float32"

    def __len__(self):
        return 2

    def detach(self):
        return self


class JaxArray(Tensor):
    """The same with a dtype of NumPy's."""

    dtype, detach = np.dtype(np.float32), property()


WRONG = {
    "tensor": (Tensor(), ".numpy()"),
    "JAX": (JaxArray(), "np.asarray(...)"),
    "list": (X.tolist(), "np.asarray(...)"),
    "masked": (np.ma.array(X), "without a mask"),
    "object": (X.astype(object), "dtype object"),
    "bool": (X > 0, "dtype bool"),
    "strings": (X.astype(str), "dtype <U"),
    "None": (None, "NoneType"),
    "a vector": (X[0, 0], "shape (3,)"),
    "no task": (X[:0], "shape (0, 5, 3)"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("place", range(4))
def test_a_batch_takes_numpys_arrays_alone(name, place):
    arrays = [X, Y, X, Y]
    wrong, words = WRONG[name]
    arrays[place] = wrong
    assert words in refused(lambda: rm.Batch(*arrays), list(vars(rm.Batch(X, Y, X, Y)))[place])


@pytest.mark.frameworks("torch")
def test_a_batch_of_torchs_tensors_says_what_to_do():
    import torch

    assert ".numpy()" in refused(lambda: rm.Batch(torch.zeros(2, 5, 3), Y, X, Y), "x_support")
    rm.Batch(torch.zeros(2, 5, 3).numpy(), Y, X, Y)


def test_support_and_query_sets_fit_each_other():
    refused(lambda: rm.Batch(X, Y, X[..., None], Y), "x_query")
    refused(lambda: rm.Batch(X, Y, X[:, :, :2], Y), "x_query")
    refused(lambda: rm.Batch(X, Y, X, Y[:, :, 0]), "y_query")
    refused(lambda: rm.Batch(X, Y, X, Y[:, :, :1]), "y_query")
    assert len(rm.Batch(X[:, :1], Y[:, :1], X, Y)) == 2  # other numbers of examples


def test_batches_are_equal_when_their_arrays_are_and_can_be_copied_and_pickled():
    batch = rm.Batch(X, Y, X, Y)
    for twin in (batch, copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert twin == batch
    assert batch != rm.Batch(X, Y, X + 1, Y) and batch != batch[:1] and batch != 3
    assert batch != batch.astype(np.float32)
    with pytest.raises(TypeError, match="unhashable"):
        hash(batch)
    refused(lambda: batch.astype(int), "dtype")
