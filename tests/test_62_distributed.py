"""Tasks over ranks: whoever computes which, the bits are those of one process. Ranks are threads here; test_63 has real ones."""

import math
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from rank_threads import on_ranks

from refmaml import ERM, IMAML, MAML, Batch, MetaSGD, Reptile, Sinusoids, kernels
from refmaml.cli import main, mpi
from refmaml.errors import ArgumentError, DataError, NonFiniteError
from refmaml.models import mlp
from refmaml.training import Adam, Recipe, Schedule, evaluate, train
from refmaml.training.distributed import ALONE, Alone, Ranks

METHODS = [MAML(0.01, 2), MetaSGD(0.01), Reptile(0.01), IMAML(2.0, 3), ERM()]
TASKS = 5


def tasks(numbers, step=0):
    return Sinusoids().sample(numbers, seed=1, step=step)


def gradient_of(ranks, method, chunk=2):
    net, mine = mlp((1, 5, 1), "tanh"), ranks.mine(TASKS)
    return ranks.meta_gradient(
        method, net, method.init(net, net.init(0)), tasks(mine) if mine else None, chunk
    )


def bits(out):
    """All that a MetaGradient holds."""
    return [
        out.loss,
        out.grad.tobytes(),
        out.task_losses.tobytes(),
        sorted((k, a.tobytes()) for k, a in out.report.items()),
    ]


def recipe_of(ranks):
    mine = ranks.mine(TASKS)
    return Recipe(
        mlp((1, 5, 1), "tanh"),
        MAML(0.01),
        Adam(),
        Schedule(1e-2),
        lambda step: tasks(mine, step) if mine else None,
        2,
        ranks,
    )


def trained(ranks, steps, now=None):
    recipe = recipe_of(ranks)
    return train(recipe, now or recipe.start(recipe.net.init(0)), steps=steps)


def state(now):
    """Parameters, optimiser and curve, but for the seconds."""
    return (
        now.meta.tobytes(),
        {k: a.tobytes() for k, a in now.state.items()},
        [(r.step, r.loss, r.grad_norm) for r in now.rows],
    )


# ---- the same bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_ranks_have_consecutive_tasks_and_none_has_two_more_than_another(size, count):
    parts = [Ranks(SimpleNamespace(rank=rank, size=size)).mine(count) for rank in range(size)]
    assert (
        [task for part in parts for task in part] == list(ALONE.mine(count)) == list(range(count))
    )
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_meta_gradient_has_the_same_bits_on_any_number_of_ranks(method, size):
    alone = bits(gradient_of(ALONE, method))
    assert all(
        bits(out) == alone for out in on_ranks(size, lambda ranks: gradient_of(ranks, method))
    )
    assert all(
        bits(out) == alone
        for out in on_ranks(size, lambda ranks: gradient_of(ranks, method, chunk=None))
    )


class RankSums(Ranks):
    """The planted error: each rank adds up its own tasks first, as an allreduce would."""

    def sum_in_task_order(self, total, gradients):
        own = total + sum(row for rows in gradients for row in rows)
        return sum(self.comm.allgather(own), start=total)


class LastRankFirst(Ranks):
    """Another: the total travels the other way."""

    def sum_in_task_order(self, total, gradients):
        for of_a_rank in reversed(self.comm.allgather([row for rows in gradients for row in rows])):
            for row in of_a_rank:
                total = total + row
        return total


@pytest.mark.parametrize("planted", [RankSums, LastRankFirst])
def test_sums_in_another_order_than_that_of_tasks_would_be_noticed(planted):
    alone = gradient_of(ALONE, METHODS[0])
    wrong = on_ranks(2, lambda ranks: gradient_of(ranks, METHODS[0]), planted)
    assert all(bits(out) != bits(alone) for out in wrong)
    # and by nothing but rounding: TASKS sums of float32 numbers
    assert all(
        np.abs(out.grad - alone.grad).max()
        <= TASKS * np.finfo(np.float32).eps * np.abs(alone.grad).max()
        for out in wrong
    )


@pytest.mark.parametrize("size", [2, 6])
def test_training_goes_on_with_the_same_bits_on_another_number_of_ranks(size):
    whole = trained(ALONE, 12)
    halves = on_ranks(3, lambda ranks: trained(ranks, 6))
    assert all(state(now) == state(trained(ALONE, 6)) for now in halves)
    after = on_ranks(size, lambda ranks: trained(ranks, 12, halves[0]))
    assert all(state(now) == state(whole) for now in after)


@pytest.mark.parametrize("size", [2, 9])
def test_an_evaluation_has_the_same_values_on_any_number_of_ranks(size):
    net = mlp((1, 5, 1), "tanh")
    theta, alone = net.init(0), None

    def judged(ranks):
        return evaluate(net, METHODS[0], theta, tasks, 7, chunk=2, ranks=ranks)

    alone = judged(ALONE)
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
        net, mine = mlp((1, 3, 1), "tanh", kernels=computes), ranks.mine(TASKS)
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

    alone = steps(ALONE)
    assert on_ranks(2, steps) == [alone] * 2 and on_ranks(6, steps) == [alone] * 6


def test_alone_and_ranks_have_the_same_face():
    def face(kind):
        return {name for name in vars(kind) if not name.startswith("_")}

    assert face(Alone) - {"rank", "size", "agreed"} <= face(Ranks)


# ---- when something goes wrong -----------------------------------------------------------------------------


class Broken:
    """Task 3 of a meta-step, or of an evaluation, has a number that is none."""

    def __init__(self, ranks):
        self.mine = ranks.mine(TASKS)

    def __call__(self, numbers):
        batch = tasks(numbers)
        x = batch.x_query.copy()
        x[[task == 3 for task in numbers], 0] = np.nan
        return Batch(batch.x_support, batch.y_support, x, batch.y_query)


@pytest.mark.parametrize("size", [2, 5])
def test_a_number_that_is_none_on_one_rank_stops_all_with_the_line_of_one_process(size):
    net = mlp((1, 5, 1), "tanh")
    theta = net.init(0)

    def trains(ranks):
        broken = Broken(ranks)
        return ranks.meta_gradient(METHODS[0], net, theta, broken(broken.mine), 1)

    def evaluates(ranks):
        return evaluate(net, METHODS[0], theta, Broken(ranks), TASKS, chunk=2, ranks=ranks)

    for run in (trains, evaluates):
        with pytest.raises(NonFiniteError, match="in task 3|the first in task 3") as alone:
            run(ALONE)
        assert [(type(e), str(e)) for e in on_ranks(size, run)] == [
            (NonFiniteError, str(alone.value))
        ] * size


def fail(ranks, those, text="file: no"):
    if ranks.rank in those:
        raise DataError(text)
    return ranks.rank


def test_an_error_of_some_is_an_error_of_all_and_what_all_say_is_said_once():
    def together(ranks):
        with ranks.together():
            fail(ranks, those)
        return "went on"

    for those, text in (((1, 2), "file: no (rank 1 of 3)"), ((0, 1, 2), "file: no")):
        for run in (together, lambda ranks: ranks.gather(lambda: fail(ranks, those))):  # noqa: B023 (called at once)
            assert [(type(e), str(e)) for e in on_ranks(3, run)] == [(DataError, text)] * 3
    those = ()
    assert on_ranks(3, together) == ["went on"] * 3
    assert on_ranks(3, lambda ranks: ranks.gather(lambda: fail(ranks, ()))) == [[0, 1, 2]] * 3


def test_an_accident_on_one_rank_is_not_taken_for_an_error_of_all():
    def run(ranks):
        with ranks.together():
            raise ZeroDivisionError

    assert [type(e) for e in on_ranks(2, run)] == [ZeroDivisionError] * 2


def test_what_the_first_rank_found_all_have_and_its_error_too():
    assert on_ranks(3, lambda ranks: ranks.from_first(lambda: ranks.rank + 7)) == [7, 7, 7]
    assert [
        str(e) for e in on_ranks(2, lambda ranks: ranks.from_first(lambda: fail(ranks, (0,))))
    ] == ["file: no"] * 2


def test_the_first_rank_goes_before_the_others_even_if_it_fails():
    order = []

    def run(ranks):
        with ranks.together(), ranks.first_before_others():
            order.append(ranks.rank)
            fail(ranks, failing)

    for failing in ((), (0,)):  # noqa: B007 (used in run)
        order.clear()
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
        return seen[-1], state(saved[-1]), ranks.agreed, stop.value.signum

    assert on_ranks(3, run) == [(3, state(trained(ALONE, 3)), True, signal.SIGTERM)] * 3


def test_minutes_are_those_of_the_first_rank():
    def run(ranks):
        return [ranks.go_on(wish) for wish in ((True, False) if ranks.rank == 0 else (False, True))]

    assert on_ranks(2, run) == [[True, False]] * 2


# ---- a rank's share of its machine -------------------------------------------------------------------------


def ranks_here(rank, size, everybody=()):
    local = SimpleNamespace(rank=rank, size=size, allgather=lambda mine: [*everybody])
    return Ranks(SimpleNamespace(rank=rank, size=size, allgather=lambda mine: [mine] * size), local)


@pytest.mark.parametrize(
    "cores, everybody, threads",
    [
        ({0, 1}, [{0, 1}] * 2, 1),
        ({0, 1}, [{0, 1}] * 4, 1),
        (set(range(8)), [set(range(8))] * 3, 2),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}, {4, 5, 6, 7}], 4),
    ],
)
def test_ranks_share_the_cores_that_they_may_use_alike(cores, everybody, threads):
    assert mpi.threads_of(ranks_here(0, len(everybody), everybody), cores) == threads


def test_threads_are_numbas_affair_alone_or_where_somebody_says(monkeypatch):
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    two = ranks_here(0, 2, [mpi.cores()] * 2)
    assert mpi.share_of_machine(ALONE, "cpu") is None and mpi.share_of_machine(two, "cpu", 3) == 3
    assert mpi.share_of_machine(two, "cpu") == max(1, len(mpi.cores()) // 2)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert mpi.share_of_machine(two, "cpu") is None


def test_gpus_are_dealt_to_the_ranks_of_a_machine():
    taken = []
    for rank in range(5):
        mpi.take_gpu(
            ranks_here(rank, 5), SimpleNamespace(getDeviceCount=lambda: 2, setDevice=taken.append)
        )
    assert taken == [0, 1, 0, 1, 0]
    mpi.take_gpu(
        ranks_here(1, 2), SimpleNamespace(getDeviceCount=lambda: 0, setDevice=taken.append)
    )
    assert len(taken) == 5


def test_ranks_that_find_no_gpu_all_say_so_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    lines = on_ranks(2, lambda ranks: mpi.share_of_machine(ranks, "cuda"))
    assert [type(e) for e in lines] == [ArgumentError] * 2 and len(set(map(str, lines))) == 1
    assert str(lines[0]).startswith("kernels: the cuda kernels need cupy: pip install ")


@pytest.mark.parametrize("size, rank", mpi.TOLD)
def test_mpiexec_without_mpi4py_is_answered_once_with_what_to_type(capsys, monkeypatch, size, rank):
    for name in (name for names in mpi.TOLD for name in names):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(size, "2")
    for mine, said in (
        ("1", ""),
        (
            "0",
            "refmaml: mpiexec: expected mpiexec -n R python -m mpi4py -m refmaml ..., after pip install "
            "'refmaml[mpi]', got 2 processes without -m mpi4py\n",
        ),
    ):
        monkeypatch.setenv(rank, mine)
        assert main(["train", "--steps", "1"]) == 2
        assert capsys.readouterr().err == said
    monkeypatch.setenv(size, "1")
    assert mpi.launched() is ALONE


def test_commands_that_ranks_cannot_share_are_refused():
    with pytest.raises(
        ArgumentError,
        match="mpiexec: expected refmaml train or evaluate on several ranks, got verify",
    ):
        mpi.refuse_ranks(ranks_here(0, 2), "verify", ("train", "evaluate"))
    mpi.refuse_ranks(ALONE, "verify", ("train",))


def test_how_to_go_on_names_as_many_ranks():
    assert mpi.program(ranks_here(1, 3)) == "mpiexec -n 3 python -m mpi4py -m refmaml"
    assert mpi.program(ALONE) == "refmaml"


def test_a_row_is_the_first_ranks_business_but_its_figures_are_everybodys():
    rows = [now.rows for now in on_ranks(2, lambda ranks: trained(ranks, 2))]
    assert [r[:2] for r in rows[0]] == [r[:2] for r in rows[1]] and all(
        math.isnan(r.accuracy) for r in rows[0]
    )
