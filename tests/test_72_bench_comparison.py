"""The comparison of `refmaml bench`: timings, agreement and settings.

Each check is tested with the error that it must find.
"""

import numpy as np
import pytest
from clock import Clock

import refmaml as rm
from refmaml.bench import agreement, comparison, timing
from refmaml.bench.implementations import PEERS, find, missing
from refmaml.bench.implementations.implementation import Implementation, chunks, first_settings
from refmaml.bench.worker import Worker
from refmaml.bench.workloads import TABLE

pytestmark = pytest.mark.slow

TINY = TABLE["tiny"]


# ---- timings ----


def test_median_and_quartiles_of_known_timings():
    assert timing.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == timing.Spread(3.0, 2.0, 4.0, 1.0, 5)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    monkeypatch.setattr(timing, "sleep", clock.sleep)
    return clock


def test_timers_run_in_turns_and_slow_ones_get_the_least_number_of_turns(clock):
    order = []

    def timer(name, seconds):
        def run_turn(turn_seconds):
            order.append(name)
            clock.sleep(seconds)
            return [seconds]

        return run_turn

    times = timing.by_turns(
        {"fast": timer("fast", 2**-10), "slow": timer("slow", 50 * 2**-10)}, 60.5 * 2**-10, 0.0
    )
    # A timer that has used its seconds gets no further turn.
    assert times == {"fast": [2**-10] * 60, "slow": [50 * 2**-10] * timing.MIN_TURNS}
    assert order == ["fast", "slow"] * timing.MIN_TURNS + ["fast"] * (60 - timing.MIN_TURNS)


def test_the_first_of_many_timings_of_a_turn_is_dropped(clock):
    delays = iter([0.25] + [2**-4] * 100)
    assert timing.turn(lambda: clock.sleep(next(delays)), 1.0) == [2**-4] * 12
    assert (
        timing.turn(lambda: clock.sleep(0.5), 1.0) == [0.5] * 2
    )  # with few timings, none is dropped


# ---- agreement ----


def test_a_wrong_gradient_is_refused_and_a_right_one_is_not():
    right = agreement.reference_gradient(TINY)
    first_order = rm.FirstOrderMAML(TINY.inner_lr, TINY.inner_steps)
    wrong = first_order.meta_gradient(TINY.net(), TINY.theta(float), TINY.batch(float)).grad

    def refusal(value):
        error = agreement.distance(value, right)
        return agreement.disagreement(error, "float64", agreement.FLOAT64_LIMIT)

    for value in (wrong, 1.001 * right, right[:-1], np.full_like(right, np.nan)):
        assert refusal(value)
    assert refusal(right + 1e-15) is None


def test_imaml_runs_all_iterations_and_differs_from_the_query_gradient_by_more_than_rounding():
    """So all implementations do the same work, and the identity for H is refused."""
    for name in ("strided-imaml", "tiny-imaml"):
        few = TABLE[name].with_tasks(2)
        start = few.theta(float), few.batch(float)
        out = few.method.meta_gradient(few.net(), *start, trace=True)
        assert (out.report["cg_status"] == "maxiter").all()
        error = agreement.distance(out.trace["query_grad"][0].mean(axis=0), out.grad)
        assert error > 0.9 * agreement.float32_limit(few), name


@pytest.mark.parametrize("name", [name for name in TABLE if name != "max-pool-1"])
def test_a_first_order_gradient_is_further_off_than_rounding_may_be(name):
    few = TABLE[name].with_tasks(2)
    first_order = rm.FirstOrderMAML(few.inner_lr, few.inner_steps)
    wrong = first_order.meta_gradient(few.net(), few.theta(float), few.batch(float)).grad
    error = agreement.distance(wrong, agreement.reference_gradient(few))
    assert error > 2 * agreement.float32_limit(few)


class GradientWorker:
    """A worker whose answer is a given gradient."""

    def __init__(self, gradient):
        self.gradient = gradient

    def call(self, method, *arguments):
        return self.gradient, 0.1


def test_a_wrong_float32_gradient_is_refused_after_the_first_call():
    right = agreement.reference_gradient(TINY)
    result = comparison.Result("refmaml", "refmaml", {})
    warm = comparison.warm_up(GradientWorker(right), TINY, result, right)
    assert warm.refused is None
    wrong = comparison.warm_up(GradientWorker(1.5 * right), TINY, result, right)
    assert "float32 is 5.0e-01 off" in wrong.refused


@pytest.mark.frameworks
@pytest.mark.parametrize("workload", ["sinusoid-1", "tiny-imaml", "tiny-reptile"])
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_computes_the_reference_gradient_in_float64(name, workload):
    implementation, workload = find(name), TABLE[workload].with_tasks(2)
    if reason := missing(implementation):
        pytest.skip(reason)
    if type(workload.method) not in implementation.methods:
        assert name == "higher"
        return
    settings = first_settings(implementation.choices(workload))
    with Worker(name) as worker:
        gradient = worker.call("gradient", workload, np.float64, settings)
    error = agreement.distance(gradient, agreement.reference_gradient(workload))
    assert error < agreement.FLOAT64_LIMIT


def test_an_absent_library_is_a_reason():
    absent = Implementation("absent", "absent", ("no_such_library",), lambda w: {}, None)
    reason = "no_such_library: not installed; pip install 'refmaml[bench]' brings it"
    assert missing(absent) == reason


# ---- settings ----


class TimedWorker:
    """A worker whose time is a given function of its settings."""

    def __init__(self, seconds):
        self.seconds, self.prepared = seconds, []

    def call(self, method, *arguments):
        if method == "prepare":
            self.prepared.append(arguments[1])
            return None
        return [self.seconds(self.prepared[-1])]


def test_tuning_finds_the_best_of_each_setting():
    worker = TimedWorker(lambda s: abs(s["chunk"] - 8) + (s["unroll"] == 1))
    best, tried = comparison.tune(worker, TINY, {"chunk": (16, 8, 4), "unroll": (1, 5)}, 10, 0)
    assert best == {"chunk": 8, "unroll": 5} and len(tried) == 4


def test_tuning_stops_when_its_time_is_over():
    best, tried = comparison.tune(TimedWorker(lambda s: 1.0), TINY, {"chunk": (16, 8, 4)}, 0.0, 0)
    assert best == {"chunk": 16} and len(tried) == 1


def test_chunks_are_no_larger_than_the_batch():
    assert chunks(TABLE["strided-1"]) == (16, 8, 4, 32) and chunks(TINY.with_tasks(3)) == (3,)
    assert chunks(TABLE["max-pool-1"]) == (4, 8, 16)
