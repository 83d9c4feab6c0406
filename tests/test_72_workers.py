"""The bench's worker processes: answers, errors, a process that dies or hangs."""

from time import sleep

import pytest
from clock import Clock

from refmaml.bench import comparison
from refmaml.bench.gpu import comparison as gpu_comparison
from refmaml.bench.memory import resident
from refmaml.bench.worker import Worker, WorkerError
from refmaml.bench.workloads import TABLE

TINY = TABLE["tiny"]
PATIENCE = 120  # seconds in which a process starts and ends on a machine with other work


def test_a_worker_reports_an_error_and_continues():
    with Worker("refmaml", "reference") as worker:
        with pytest.raises(WorkerError, match="refmaml: TypeError"):
            worker.call("prepare", TINY, {"no": "such setting"})
        gradient, seconds = worker.call("prepare", TINY, {})
        assert gradient.shape == (TINY.net().num_params,) and seconds > 0
        assert len(worker.call("turn", 0.0)) == 1


def test_a_worker_that_dies_is_an_error_and_no_hang():
    with Worker("refmaml", "reference") as worker:
        worker.process.terminate()
        with pytest.raises(WorkerError, match="end of its process"):
            worker.call("turn", 0.0)


@pytest.mark.slow
@pytest.mark.skipif(resident("VmHWM") is None, reason="this system has no /proc/self/status")
def test_peak_memory_is_the_largest_resident_size_beyond_the_start():
    with Worker("sgemm") as worker:
        worker.call("prepare", TINY, {})
        peak = worker.call("peak")
    matrices = 3 * 4 * 2048**2
    drawing = 2 * 8 * 2048**2  # float64 numbers, from which a matrix is made
    assert matrices < peak < matrices + drawing


class SleepingService:
    """A service whose method sleeps instead of computing."""

    def __init__(self, name, kernels):
        pass

    def sleep(self, seconds):
        sleep(seconds)


@pytest.mark.slow
def test_a_worker_without_an_answer_within_its_limit_is_killed():
    with Worker("sleeper", limit=PATIENCE, service=SleepingService) as worker:
        worker.call("sleep", 0)
        worker.limit = 0.2
        with pytest.raises(
            WorkerError, match=r"sleeper: expected an answer within 0.2 s, got none"
        ):
            worker.call("sleep", 600)
        worker.process.join(PATIENCE)
        assert worker.process.exitcode == -9
        with pytest.raises(WorkerError, match="sleeper"):
            worker.call("sleep", 0)


class HangingWorker:
    """A worker that gives no answer: its waiting makes the clock go on."""

    limit = 3

    def __init__(self, clock):
        self.clock, self.waited = clock, None

    def send(self, method, *arguments):
        pass

    def receive(self, limit=None):
        self.waited = limit
        self.clock.sleep(limit)
        raise WorkerError("got none")


def test_workers_that_compute_at_the_same_time_have_one_limit_together(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(gpu_comparison, "perf_counter", clock)
    workers = {name: HangingWorker(clock) for name in ("first", "second", "third")}
    results = {name: comparison.Result(name, "", {}) for name in workers}
    gpu_comparison.all_workers(workers, results, "turn", lambda name: (), lambda r, answer: r)
    assert all(result.refused == "got none" for result in results.values())
    waited = [worker.waited for worker in workers.values()]
    assert waited == [3, gpu_comparison.MIN_WAIT, gpu_comparison.MIN_WAIT]


def test_a_worker_without_a_limit_is_waited_for(monkeypatch):
    class PatientWorker(HangingWorker):
        limit = None

        def receive(self, limit=None):
            assert limit is None
            return "answer"

    workers, results = {"first": PatientWorker(None)}, {"first": comparison.Result("", "", {})}
    gpu_comparison.all_workers(
        workers, results, "turn", lambda name: (), lambda r, answer: r._replace(title=answer)
    )
    assert results["first"].title == "answer"
