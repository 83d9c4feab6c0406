"""Errors of methods: a bad argument, and numbers that are not finite."""

import numpy as np
import pytest

import refmaml as rm
from refmaml.oracles import cases

NET = cases.conv_net()
THETA, BATCH, _ = cases.method_case(NET, [])
REFUSED = [
    (
        lambda: rm.MAML(0.1, 0),
        "inner_steps: expected an integer >= 1 (ERM is the method without adaptation), got 0",
    ),
    (lambda: rm.MAML(-0.1), "inner_lr: expected a finite number > 0, got -0.1"),
    (lambda: rm.MAML(float("nan")), "inner_lr: expected a finite number > 0, got nan"),
    (
        lambda: rm.Reptile(0.1, optimizer="rmsprop"),
        "optimizer: expected 'sgd' or 'adam', got 'rmsprop'",
    ),
    (
        lambda: rm.Reptile(0.1, inner_batch=100).meta_gradient(NET, THETA, BATCH),
        "inner_batch: expected at most the 6 examples",
    ),
    (lambda: rm.IMAML(0), "regularization: expected a finite number > 0, got 0"),
    (
        lambda: rm.IMAML(1.0, solver="lbfgs"),
        "solver: expected one of gradient_descent, controlled_descent, newton_cg, got 'lbfgs'",
    ),
    (
        lambda: rm.MAMLPlusPlus(0.1, 3, loss_weights=(1,)),
        "loss_weights: expected 3 finite numbers, one for each inner step",
    ),
    (
        lambda: rm.MAML(0.1).meta_gradient(NET, THETA[1:], BATCH),
        "theta: expected an array of shape (219,), got ndarray of shape (218,)",
    ),
    (
        lambda: rm.MetaSGD(0.1).meta_gradient(NET, THETA, BATCH),
        "meta: expected an array of shape (438,), got ndarray of shape (219,)",
    ),
    (
        lambda: rm.MAML(0.1).meta_gradient(NET, list(THETA), BATCH),
        "theta: expected an array of shape (219,), got list",
    ),
    (
        lambda: rm.MAML(0.1, frozen=("BatchNorm",)).meta_gradient(NET, THETA, BATCH),
        "patterns: expected a name, wildcard or layer class",
    ),
    (
        lambda: rm.CAVIA(0.1).meta_gradient(NET, THETA, BATCH),
        "patterns: expected a name, wildcard or layer class",
    ),
    (
        lambda: rm.MAML(0.1).meta_gradient(NET, THETA, BATCH, chunk=0),
        "chunk: expected an integer >= 1, or None, got 0",
    ),
    (lambda: BATCH[:0], "x_support: expected at least one task"),
    (
        lambda: rm.Batch(BATCH.x_support, BATCH.y_support, BATCH.x_query[:1], BATCH.y_query),
        "x_query: expected 2 tasks as in x_support",
    ),
]


@pytest.mark.parametrize("make,message", REFUSED, ids=[m for _, m in REFUSED])
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def poisoned(batch, name, task, value):
    arrays = {f: getattr(batch, f).copy() for f in ("x_support", "y_support", "x_query", "y_query")}
    arrays[name][task].flat[0] = value
    return rm.Batch(**arrays)


@pytest.mark.parametrize(
    "make,message",
    [
        (
            lambda: rm.MAML(0.1, 2).meta_gradient(
                NET, np.where(np.arange(219) == 40, np.nan, THETA), BATCH
            ),
            "theta: expected finite numbers, got nan at entry 40 (1.weight)",
        ),
        (
            lambda: rm.MAML(0.1, 2).meta_gradient(
                NET, THETA, poisoned(BATCH, "x_support", 1, np.inf)
            ),
            "support set, inner step 0: the inputs: expected finite numbers, got 1 "
            "non-finite ones in task 1",
        ),
        (
            lambda: rm.MAML(0.1, 2).meta_gradient(
                NET, THETA, poisoned(BATCH, "x_query", 0, np.nan)
            ),
            "query set: the inputs: expected finite numbers, got 1 non-finite ones in task 0",
        ),
        (
            lambda: rm.MAML(1e200, 3).meta_gradient(NET, THETA, BATCH),
            "support set, inner step 1: the outputs of layer",
        ),
    ],
)
def test_non_finite_numbers_are_traced_to_the_first_place_they_appear(make, message):
    with pytest.raises(rm.NonFiniteError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)
