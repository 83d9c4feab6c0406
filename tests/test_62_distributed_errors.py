"""Errors and signals on some ranks stop all ranks in good order.

Ranks are threads here.
"""

import signal
from functools import partial

import numpy as np
import pytest
from rank_threads import on_ranks
from ranks_of_sinusoids import METHODS, TASKS, recipe_of, state, tasks, trained

from refmaml import Batch
from refmaml.errors import DataError, NonFiniteError
from refmaml.models import mlp
from refmaml.training import evaluate, train
from refmaml.training.distributed import SINGLE_PROCESS


class Broken:
    """Task 3 of a meta-step, or of an evaluation, has a NaN."""

    def __init__(self, ranks):
        self.mine = ranks.my_tasks(TASKS)

    def __call__(self, numbers):
        batch = tasks(numbers)
        x = batch.x_query.copy()
        x[[task == 3 for task in numbers], 0] = np.nan
        return Batch(batch.x_support, batch.y_support, x, batch.y_query)


@pytest.mark.parametrize("size", [2, 5])
def test_a_nan_on_one_rank_stops_all_with_the_error_of_one_process(size):
    net = mlp((1, 5, 1), "tanh")
    theta = net.init(0)

    def trains(ranks):
        broken = Broken(ranks)
        return ranks.meta_gradient(METHODS[0], net, theta, broken(broken.mine), 1)

    def evaluates(ranks):
        return evaluate(net, METHODS[0], theta, Broken(ranks), TASKS, chunk=2, ranks=ranks)

    for run in (trains, evaluates):
        with pytest.raises(NonFiniteError, match="in task 3|the first in task 3") as alone:
            run(SINGLE_PROCESS)
        assert [(type(e), str(e)) for e in on_ranks(size, run)] == [
            (NonFiniteError, str(alone.value))
        ] * size


def fail(ranks, failing, text="file: no"):
    if ranks.rank in failing:
        raise DataError(text)
    return ranks.rank


def test_an_error_of_some_is_an_error_of_all_and_one_of_all_has_no_rank():
    def sharing(ranks, failing):
        with ranks.shared_errors():
            fail(ranks, failing)
        return "continued"

    def gathering(ranks, failing):
        return ranks.gather(lambda: fail(ranks, failing))

    for run in (sharing, gathering):
        for failing, text in (((1, 2), "file: no (rank 1 of 3)"), ((0, 1, 2), "file: no")):
            found = on_ranks(3, partial(run, failing=failing))
            assert [(type(e), str(e)) for e in found] == [(DataError, text)] * 3
    assert on_ranks(3, partial(sharing, failing=())) == ["continued"] * 3
    assert on_ranks(3, partial(gathering, failing=())) == [[0, 1, 2]] * 3


def test_an_unexpected_exception_is_not_shared():
    def run(ranks):
        with ranks.shared_errors():
            raise ZeroDivisionError

    assert [type(e) for e in on_ranks(2, run)] == [ZeroDivisionError] * 2


def test_the_result_of_rank_0_or_its_error_reaches_all_ranks():
    assert on_ranks(3, lambda ranks: ranks.from_rank_0(lambda: ranks.rank + 7)) == [7, 7, 7]
    assert [
        str(e) for e in on_ranks(2, lambda ranks: ranks.from_rank_0(lambda: fail(ranks, (0,))))
    ] == ["file: no"] * 2


@pytest.mark.parametrize("failing", [(), (0,)])
def test_the_first_rank_goes_before_the_others_even_if_it_fails(failing):
    order = []

    def run(ranks):
        with ranks.shared_errors(), ranks.local_rank_0_first():
            order.append(ranks.rank)
            fail(ranks, failing)

    on_ranks(4, run)
    assert order[0] == 0 and sorted(order) == [0, 1, 2, 3]


def test_ctrl_c_on_any_rank_stops_all_after_the_same_step():
    def run(ranks):
        recipe, saved, seen = recipe_of(ranks), [], []

        def show(now):
            seen.append(now.step)
            if ranks.rank == 1 and now.step == 3:
                ranks.note_signal(signal.SIGTERM)

        with pytest.raises(KeyboardInterrupt) as stop:
            train(recipe, recipe.start(recipe.net.init(0)), steps=9, show=show, save=saved.append)
        return seen[-1], state(saved[-1]), ranks.all_stop, stop.value.signum

    assert on_ranks(3, run) == [(3, state(trained(SINGLE_PROCESS, 3)), True, signal.SIGTERM)] * 3


def test_minutes_are_those_of_the_first_rank():
    def run(ranks):
        return [
            ranks.should_continue(own_answer)
            for own_answer in ((True, False) if ranks.rank == 0 else (False, True))
        ]

    assert on_ranks(2, run) == [[True, False]] * 2
