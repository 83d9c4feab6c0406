"""What a rank uses of its machine, and how ranks are started."""

import math
import sys
from types import SimpleNamespace

import pytest
from rank_threads import on_ranks
from ranks_of_sinusoids import trained

from refmaml.cli import main, mpi
from refmaml.errors import ArgumentError
from refmaml.training.distributed import SINGLE_PROCESS, Ranks


def ranks_here(rank, size, all_cores=()):
    local = SimpleNamespace(rank=rank, size=size, allgather=lambda mine: [*all_cores])
    return Ranks(SimpleNamespace(rank=rank, size=size, allgather=lambda mine: [mine] * size), local)


@pytest.mark.parametrize(
    "cores, all_cores, threads",
    [
        ({0, 1}, [{0, 1}] * 2, 1),
        ({0, 1}, [{0, 1}] * 4, 1),
        (set(range(8)), [set(range(8))] * 3, 2),
        ({0, 1, 2, 3}, [{0, 1, 2, 3}, {4, 5, 6, 7}], 4),
    ],
)
def test_ranks_share_the_cores_that_they_may_use_alike(cores, all_cores, threads):
    assert mpi.threads_per_rank(ranks_here(0, len(all_cores), all_cores), cores) == threads


def test_numba_chooses_the_threads_of_one_process_and_where_they_are_set(monkeypatch):
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    two = ranks_here(0, 2, [mpi.available_cores()] * 2)
    assert (
        mpi.assign_resources(SINGLE_PROCESS, "cpu") is None
        and mpi.assign_resources(two, "cpu", 3) == 3
    )
    assert mpi.assign_resources(two, "cpu") == max(1, len(mpi.available_cores()) // 2)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert mpi.assign_resources(two, "cpu") is None


def test_the_ranks_of_a_machine_take_turns_at_its_gpus():
    taken = []
    for rank in range(5):
        mpi.select_gpu(
            ranks_here(rank, 5), SimpleNamespace(getDeviceCount=lambda: 2, setDevice=taken.append)
        )
    assert taken == [0, 1, 0, 1, 0]
    mpi.select_gpu(
        ranks_here(1, 2), SimpleNamespace(getDeviceCount=lambda: 0, setDevice=taken.append)
    )
    assert len(taken) == 5


def test_all_ranks_without_a_gpu_have_the_same_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # as if it were not installed
    lines = on_ranks(2, lambda ranks: mpi.assign_resources(ranks, "cuda"))
    assert [type(e) for e in lines] == [ArgumentError] * 2 and len(set(map(str, lines))) == 1
    assert str(lines[0]).startswith("kernels: the cuda kernels need cupy: pip install ")


@pytest.mark.parametrize("size, rank", mpi.ENVIRONMENT)
def test_mpiexec_without_mpi4py_is_one_line_with_the_right_command(capsys, monkeypatch, size, rank):
    for name in (name for names in mpi.ENVIRONMENT for name in names):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(size, "2")
    for rank_number, printed in (
        ("1", ""),
        (
            "0",
            "refmaml: mpiexec: expected mpiexec -n R python -m mpi4py -m refmaml ..., after "
            "pip install "
            "'refmaml[mpi]', got 2 processes without -m mpi4py\n",
        ),
    ):
        monkeypatch.setenv(rank, rank_number)
        assert main(["train", "--steps", "1"]) == 2
        assert capsys.readouterr().err == printed
    monkeypatch.setenv(size, "1")
    assert mpi.detect_ranks() is SINGLE_PROCESS


def test_commands_that_ranks_cannot_share_are_refused():
    with pytest.raises(
        ArgumentError,
        match="mpiexec: expected refmaml train or evaluate on several ranks, got verify",
    ):
        mpi.refuse_ranks(ranks_here(0, 2), "verify", ("train", "evaluate"))
    mpi.refuse_ranks(SINGLE_PROCESS, "verify", ("train",))


def test_the_command_that_resumes_names_as_many_ranks():
    assert mpi.launch_command(ranks_here(1, 3)) == "mpiexec -n 3 python -m mpi4py -m refmaml"
    assert mpi.launch_command(SINGLE_PROCESS) == "refmaml"


def test_all_ranks_have_the_same_rows():
    rows = [now.rows for now in on_ranks(2, lambda ranks: trained(ranks, 2))]
    assert [r[:2] for r in rows[0]] == [r[:2] for r in rows[1]] and all(
        math.isnan(r.accuracy) for r in rows[0]
    )
