"""Evaluation with the query examples of a task together, and one at a time."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.training import evaluate

FREEZING = rm.MAML(0.2, 2, frozen=("BatchNorm2d",))


def tiny(n_way=3, loss=None):
    return rm.conv4(n_way, channels=4, kernels=rm.kernels.reference(), loss=loss)


def glyphs(k_query=2):
    return lambda tasks: rm.Glyphs("test").sample(tasks, 3, 2, k_query, dtype=np.float64)


def test_one_at_a_time_is_each_query_example_alone_behind_the_support_set():
    net, sample = tiny(), glyphs()
    theta, batch = net.init(0, np.float64), sample(range(4))
    phi = FREEZING.adapt(net, theta, batch.x_support, batch.y_support)
    hits = np.zeros((4, 6))
    for t in range(4):
        for m in range(6):
            x = np.concatenate([batch.x_support[t], batch.x_query[t, m : m + 1]])[None]
            z = net.forward(net.parameters.views(phi[t : t + 1]), x)[0][0, -1]
            hits[t, m] = z.argmax() == batch.y_query[t, m]
    got = evaluate(net, FREEZING, theta, sample, 4, transductive=False)
    assert np.array_equal(got.values, hits.mean(axis=1))


def test_one_at_a_time_no_query_example_sees_another():
    """Half of the query set is changed: the other half must not change.

    In one batch it does change.
    """
    net, theta, batch = tiny(), tiny().init(0, np.float64), glyphs(4)(range(2))
    phi = FREEZING.adapt(net, theta, batch.x_support, batch.y_support)
    from refmaml.training.evaluation import outputs

    other = rm.Batch(batch.x_support, batch.y_support, batch.x_query.copy(), batch.y_query)
    other.x_query[:, 6:] = 1 - other.x_query[:, 6:]
    alone, together = (
        [outputs(net, phi, b, transductive)[:, :6] for b in (batch, other)]
        for transductive in (False, True)
    )
    assert np.array_equal(*alone) and not np.allclose(*together)


def test_without_batch_norm_transduction_makes_no_difference():
    net, sinusoids = rm.mlp((1, 8, 1), kernels=rm.kernels.reference()), rm.Sinusoids()

    def sample(tasks):
        return sinusoids.sample(tasks, k_shot=5, k_query=5, dtype=np.float64)

    theta = net.init(0, np.float64)
    together, alone = (
        evaluate(net, rm.MAML(0.01), theta, sample, 6, transductive=t).values for t in (True, False)
    )
    assert np.allclose(together, alone, rtol=1e-14, atol=0)  # a few additions, in any order


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_the_evaluation_does_not_depend_on_the_chunk(chunk):
    net = tiny()
    theta = net.init(1, np.float64)
    one_go = evaluate(net, FREEZING, theta, glyphs(), 7, chunk=7, transductive=False)
    assert np.array_equal(
        evaluate(net, FREEZING, theta, glyphs(), 7, chunk=chunk, transductive=False).values,
        one_go.values,
    )
