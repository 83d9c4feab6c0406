"""Held-out evaluation against plain statistics."""

import math
import statistics
from functools import partial

import numpy as np
import pytest

from refmaml import ERM, MAML, MSE, Batch, CrossEntropy, Sequential, Sinusoids, TwoLayerLinear
from refmaml.errors import ArgumentError
from refmaml.layers import Linear
from refmaml.models import mlp
from refmaml.training import evaluate

EPS = np.finfo(float).eps


def held_out(tasks):
    return Sinusoids().sample(tasks, seed=3, step=2**64 - 1)


def test_mean_and_interval_are_those_of_the_task_losses():
    net = mlp((1, 5, 1), "tanh")
    theta = net.init(0)
    result = evaluate(net, MAML(0.01), theta, held_out, 7, chunk=3)
    losses = [
        float(
            net.loss(MAML(0.01).adapt(net, theta, b.x_support, b.y_support), b.x_query, b.y_query)[
                0
            ]
        )
        for b in (held_out(range(t, t + 1)) for t in range(7))
    ]
    assert result.quantity == "loss" and result.values.tolist() == losses
    # two ways to sum seven numbers
    assert abs(result.mean - statistics.mean(losses)) <= 8 * EPS * result.mean
    half = 1.96 * statistics.stdev(losses) / math.sqrt(7)
    assert abs(result.interval - half) <= 16 * EPS * half
    assert str(result) == f"loss {result.mean:.4g} +- {result.interval:.2g}"


def test_accuracy_is_counted_after_adaptation_on_the_query_set_alone():
    net = Sequential([Linear(1, 2)], CrossEntropy(), (1,))
    theta = np.array([1.0, -1.0, 0.0, 0.0])  # says 0 for x > 0, else 1
    x = np.array([[[1.0], [2.0], [-1.0], [-2.0]], [[1.0], [1.0], [1.0], [1.0]]])
    y = np.array([[0, 0, 1, 0], [0, 0, 0, 0]])
    result = evaluate(
        net, ERM(), theta, lambda tasks: Batch(-x, y, x, y)[tasks.start : tasks.stop], 2
    )
    assert result.quantity == "accuracy" and result.values.tolist() == [0.75, 1.0]
    assert str(result) == f"accuracy 87.50 +- {100 * result.interval:.2f} %"


def test_more_inner_steps_fit_a_linear_task_better():
    net, tasks = mlp((3, 1), loss=MSE()), TwoLayerLinear(3, 3)
    losses = [
        evaluate(net, MAML(0.1, steps), np.zeros(4), partial(tasks.sample, step=9), 20).mean
        for steps in (1, 3, 10, 100)
    ]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.05 * losses[0]


def test_an_interval_needs_two_tasks():
    net = mlp((1, 5, 1))
    with pytest.raises(ArgumentError, match="tasks: expected an integer >= 2"):
        evaluate(net, ERM(), net.init(0), held_out, 1)
