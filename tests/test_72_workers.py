"""The bench's processes: what each says, what becomes of one that fails, dies or hangs."""

from contextlib import ExitStack
from time import perf_counter, sleep

import pytest

from refmaml.bench import race
from refmaml.bench.gpu import race as gpu_comparison
from refmaml.bench.memory import resident
from refmaml.bench.worker import Worker, WorkerError
from refmaml.bench.workloads import TABLE

TINY = TABLE["tiny"]
PATIENCE = 120  # seconds in which a process starts and ends, whatever else the machine does


def test_a_worker_says_what_went_wrong_and_lives_on():
    with Worker("refmaml", "reference") as worker:
        with pytest.raises(WorkerError, match="refmaml: TypeError"):
            worker.ask("prepare", TINY, {"no": "such setting"})
        gradient, seconds = worker.ask("prepare", TINY, {})
        assert gradient.shape == (TINY.net().num_params,) and seconds > 0
        assert len(worker.ask("turn", 0.0)) == 1


def test_a_worker_that_dies_is_an_error_and_no_hang():
    with Worker("refmaml", "reference") as worker:
        worker.process.terminate()
        with pytest.raises(WorkerError, match="end of its process"):
            worker.ask("turn", 0.0)


@pytest.mark.skipif(resident("VmHWM") is None, reason="this system has no /proc/self/status")
def test_memory_is_what_was_touched_at_most_over_the_start():
    with Worker("sgemm") as worker:
        worker.ask("prepare", TINY, {})
        peak = worker.ask("peak")
    matrices = 3 * 4 * 2048**2  # and a while the float64 draws one of them is made from
    assert matrices < peak < matrices + 2 * 8 * 2048**2


class Sleeper:
    """What a process is that gives no answer."""

    def __init__(self, name, kernels):
        pass

    def doze(self, seconds):
        sleep(seconds)


def test_a_worker_that_gives_no_answer_within_its_limit_is_ended():
    with Worker("sleeper", limit=PATIENCE, seat=Sleeper) as worker:
        worker.ask("doze", 0)
        worker.limit = 0.2
        with pytest.raises(
            WorkerError, match=r"sleeper: expected an answer within 0.2 s, got none"
        ):
            worker.ask("doze", 600)
        worker.process.join(PATIENCE)
        assert worker.process.exitcode == -9
        with pytest.raises(WorkerError, match="sleeper"):
            worker.ask("doze", 0)


def test_workers_that_are_asked_together_have_one_limit_together():
    names = ["first", "second", "third"]
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(name, limit=PATIENCE, seat=Sleeper)) for name in names
        }
        results = {name: race.Result(name, "", {}) for name in names}
        gpu_comparison.all_workers(
            workers, results, "doze", lambda name: (0,), lambda result, answer: result
        )
        assert not any(result.refused for result in results.values())
        for worker in workers.values():
            worker.limit = 3
        started = perf_counter()
        gpu_comparison.all_workers(
            workers, results, "doze", lambda name: (600,), lambda result, answer: result
        )
        assert (
            all("got none" in result.refused for result in results.values())
            and perf_counter() - started < 9
        )  # not 3 seconds each
