"""Tasks over ranks: the bits are those of one process.

Ranks are threads here; test_63_mpi has processes.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from rank_threads import on_ranks
from ranks_of_sinusoids import METHODS, TASKS, bits, gradient_of, state, tasks, trained

from refmaml import IMAML, MAML, kernels
from refmaml.models import mlp
from refmaml.training import Adam, Recipe, Schedule, evaluate, train
from refmaml.training.distributed import SINGLE_PROCESS, Ranks, SingleProcess


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_ranks_have_consecutive_tasks_and_none_has_two_more_than_another(size, count):
    parts = [Ranks(SimpleNamespace(rank=rank, size=size)).my_tasks(count) for rank in range(size)]
    assert (
        [task for part in parts for task in part]
        == list(SINGLE_PROCESS.my_tasks(count))
        == list(range(count))
    )
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_meta_gradient_has_the_same_bits_on_any_number_of_ranks(method, size):
    alone = bits(gradient_of(SINGLE_PROCESS, method))
    assert all(
        bits(out) == alone for out in on_ranks(size, lambda ranks: gradient_of(ranks, method))
    )
    assert all(
        bits(out) == alone
        for out in on_ranks(size, lambda ranks: gradient_of(ranks, method, chunk=None))
    )


class RankSums(Ranks):
    """Planted error: each rank adds up its own tasks first, as an allreduce would."""

    def sum_in_task_order(self, total, gradients):
        own = total + sum(row for rows in gradients for row in rows)
        return sum(self.comm.allgather(own), start=total)


class LastRankFirst(Ranks):
    """Planted error: the total travels in the opposite direction."""

    def sum_in_task_order(self, total, gradients):
        for of_a_rank in reversed(self.comm.allgather([row for rows in gradients for row in rows])):
            for row in of_a_rank:
                total = total + row
        return total


@pytest.mark.parametrize("planted", [RankSums, LastRankFirst])
def test_sums_in_another_order_than_that_of_tasks_are_noticed(planted):
    alone = gradient_of(SINGLE_PROCESS, METHODS[0])
    wrong = on_ranks(2, lambda ranks: gradient_of(ranks, METHODS[0]), planted)
    assert all(bits(out) != bits(alone) for out in wrong)
    # only by rounding: TASKS sums of float32 numbers
    assert all(
        np.abs(out.grad - alone.grad).max()
        <= TASKS * np.finfo(np.float32).eps * np.abs(alone.grad).max()
        for out in wrong
    )


@pytest.mark.parametrize("size", [2, 6])
def test_training_is_resumed_with_the_same_bits_on_another_number_of_ranks(size):
    whole = trained(SINGLE_PROCESS, 12)
    halves = on_ranks(3, lambda ranks: trained(ranks, 6))
    assert all(state(now) == state(trained(SINGLE_PROCESS, 6)) for now in halves)
    after = on_ranks(size, lambda ranks: trained(ranks, 12, halves[0]))
    assert all(state(now) == state(whole) for now in after)


@pytest.mark.parametrize("size", [2, 9])
def test_an_evaluation_has_the_same_values_on_any_number_of_ranks(size):
    net = mlp((1, 5, 1), "tanh")
    theta, alone = net.init(0), None

    def judged(ranks):
        return evaluate(net, METHODS[0], theta, tasks, 7, chunk=2, ranks=ranks)

    alone = judged(SINGLE_PROCESS)
    assert all(
        out.quantity == "loss" and out.values.tolist() == alone.values.tolist()
        for out in on_ranks(size, judged)
    )


@pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
@pytest.mark.parametrize(
    "method", [MAML(0.01), IMAML(2.0, 2, cg_steps=2)], ids=lambda m: type(m).__name__
)
def test_ranks_that_compute_on_gpus_leave_the_bits_of_one(method, cupy):
    computes = kernels.cuda(version=1)

    def steps(ranks):
        net, mine = mlp((1, 3, 1), "tanh", kernels=computes), ranks.my_tasks(TASKS)
        recipe = Recipe(
            net,
            method,
            Adam(),
            Schedule(1e-2),
            lambda step: tasks(mine, step) if mine else None,
            2,
            ranks,
        )
        saved = []
        train(recipe, recipe.start(net.init(0)), steps=2, save=saved.append)
        return state(saved[-1])

    alone = steps(SINGLE_PROCESS)
    assert on_ranks(2, steps) == [alone] * 2 and on_ranks(6, steps) == [alone] * 6


def test_a_single_process_and_ranks_have_the_same_methods():
    def face(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    assert face(SingleProcess) - {"rank", "size", "all_stop"} <= face(Ranks)
