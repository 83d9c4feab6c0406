"""`refmaml bench`: every check of it with the error it is there to find."""

import json
import re
import sys
from math import isclose
from pathlib import Path

import numpy as np
import pytest
from clock import Clock

import refmaml as rm
from refmaml import kernels
from refmaml.bench import (
    agreement,
    cost,
    kernel_table,
    machine,
    ourselves,
    picture,
    race,
    record,
    startup,
    timing,
)
from refmaml.bench.implementations import PEERS, find, missing
from refmaml.bench.implementations.implementation import Implementation, chunks, first_settings
from refmaml.bench.kernel_calls import examples, nets
from refmaml.bench.kernel_calls import record as record_calls
from refmaml.bench.worker import Seat, Worker, WorkerError
from refmaml.bench.workloads import DEFAULT, TABLE
from refmaml.cli import main

TINY = TABLE["tiny"]
QUICK = race.Options(kernels="reference", seconds=0.05, turn=0.01, tune=0.0, tell=lambda text: None)


# ---- operations --------------------------------------------------------------------------------------------------


def test_a_small_net_has_the_operations_counted_by_hand():
    net = rm.Sequential(
        [rm.Conv2d(2, 3, 3, padding=1), rm.ReLU(), rm.Flatten(), rm.Linear(48, 5)],
        input_shape=(2, 4, 4),
    )
    conv, linear = 2 * (3 * 4 * 4) * (2 * 3 * 3), 2 * 5 * 48
    assert cost.products(net, (2, 4, 4)) == [conv, linear]
    assert cost.gradient(net) == 2 * conv + 3 * linear  # y, dw; y, dx, dw
    assert cost.hvp(net) == 2 * conv + 6 * linear  # x rw, x rdy; two products each of ry, rdx, rdw


def test_the_workloads_have_the_operations_of_the_published_table():
    assert [round(TABLE[name].gflop, 1) for name in ("strided-1", "strided-5", "max-pool-1")] == [
        10.0,
        39.9,
        166.7,
    ]


def test_a_kernel_s_operations_are_those_of_its_layer():
    calls = record_calls("n", TINY.net(), *examples(TINY.net(), 2, 3), kernels.reference())
    first = next(c for c in calls if c.kernel == "conv2d_forward")
    assert (
        kernel_table.operations(first)
        == 2 * 3 * cost.products(TINY.net(), TINY.net().input_shape)[0]
    )
    once, twice = (
        next(c for c in calls if c.kernel == name)
        for name in ("linear_backward_w", "linear_r_backward_w")
    )
    assert kernel_table.operations(twice) == 2 * kernel_table.operations(once)


# ---- timings -----------------------------------------------------------------------------------------------------


def test_median_and_quartiles_of_known_timings():
    assert timing.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == timing.Spread(3.0, 2.0, 4.0, 1.0, 5)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    monkeypatch.setattr(timing, "sleep", clock.sleep)
    return clock


def test_everybody_takes_turns_and_the_slow_get_their_least(clock):
    order = []

    def taker(name, seconds):
        def take(each):
            order.append(name)
            clock.sleep(seconds)
            return [seconds]

        return take

    times = timing.by_turns(
        {"fast": taker("fast", 2**-10), "slow": taker("slow", 50 * 2**-10)}, 60.5 * 2**-10, 0.0
    )
    assert times == {
        "fast": [2**-10] * 60,
        "slow": [50 * 2**-10] * timing.LEAST,
    }  # who has used its seconds up has no more
    assert order == ["fast", "slow"] * timing.LEAST + ["fast"] * (60 - timing.LEAST)


def test_the_first_of_many_timings_of_a_turn_is_dropped(clock):
    delays = iter([0.25] + [2**-4] * 100)
    assert timing.turn(lambda: clock.sleep(next(delays)), 1.0) == [2**-4] * 12
    assert timing.turn(lambda: clock.sleep(0.5), 1.0) == [0.5] * 2  # of few, none


# ---- agreement ---------------------------------------------------------------------------------------------------


def test_a_wrong_gradient_is_refused_and_a_right_one_is_not():
    right = agreement.reference_gradient(TINY)
    first_order = rm.FirstOrderMAML(TINY.inner_lr, TINY.inner_steps)
    wrong = first_order.meta_gradient(TINY.net(), TINY.theta(float), TINY.batch(float)).grad
    for value in (wrong, 1.001 * right, right[:-1], np.full_like(right, np.nan)):
        assert agreement.disagreement(agreement.distance(value, right), "float64", agreement.EXACT)
    assert (
        agreement.disagreement(agreement.distance(right + 1e-15, right), "float64", agreement.EXACT)
        is None
    )


@pytest.mark.parametrize("name", [name for name in TABLE if name != "max-pool-1"])
def test_a_first_order_gradient_is_further_off_than_rounding_may_be(name):
    few = TABLE[name].with_tasks(2)
    first_order = rm.FirstOrderMAML(few.inner_lr, few.inner_steps)
    wrong = first_order.meta_gradient(few.net(), few.theta(float), few.batch(float)).grad
    assert agreement.distance(
        wrong, agreement.reference_gradient(few)
    ) > 2 * agreement.float32_limit(few)


class Answers:
    """A worker that answers with a gradient."""

    def __init__(self, gradient):
        self.gradient = gradient

    def ask(self, method, *arguments):
        return self.gradient, 0.1


def test_a_wrong_float32_gradient_is_refused_after_the_first_call():
    right = agreement.reference_gradient(TINY)
    result = race.Result("refmaml", "refmaml", {})
    assert race.warm_up(Answers(right), TINY, result, right).refused is None
    assert (
        "float32 is 5.0e-01 off" in race.warm_up(Answers(1.5 * right), TINY, result, right).refused
    )


@pytest.mark.frameworks
@pytest.mark.parametrize("name", PEERS)
def test_every_peer_computes_the_reference_gradient_in_float64(name):
    contestant = find(name)
    if reason := missing(contestant):
        pytest.skip(reason)
    workload = TABLE["sinusoid-1"].with_tasks(2)
    with Worker(name) as worker:
        gradient = worker.ask(
            "gradient", workload, np.float64, {**first_settings(contestant.choices(workload))}
        )
    assert agreement.distance(gradient, agreement.reference_gradient(workload)) < agreement.EXACT


def test_an_absent_library_is_a_reason():
    absent = Implementation("absent", "absent", ("no_such_library",), lambda w: {}, None)
    assert (
        missing(absent) == "no_such_library: not installed; pip install 'refmaml[bench]' brings it"
    )


# ---- settings ----------------------------------------------------------------------------------------------------


class Timed:
    """A worker whose seconds are known."""

    def __init__(self, seconds):
        self.seconds, self.asked = seconds, []

    def ask(self, method, *arguments):
        if method == "prepare":
            self.asked.append(arguments[1])
            return None
        return [self.seconds(self.asked[-1])]


def test_tuning_finds_the_best_of_each_setting():
    worker = Timed(lambda s: abs(s["chunk"] - 8) + (s["unroll"] == 1))
    best, tried = race.tune(worker, TINY, {"chunk": (16, 8, 4), "unroll": (1, 5)}, 10, 0)
    assert best == {"chunk": 8, "unroll": 5} and len(tried) == 4


def test_tuning_stops_when_its_time_is_over():
    best, tried = race.tune(Timed(lambda s: 1.0), TINY, {"chunk": (16, 8, 4)}, 0.0, 0)
    assert best == {"chunk": 16} and len(tried) == 1


def test_chunks_are_no_larger_than_the_batch():
    assert chunks(TABLE["strided-1"]) == (16, 8, 4) and chunks(TINY.with_tasks(3)) == (3,)


# ---- kernels -----------------------------------------------------------------------------------------------------


def test_the_nets_of_the_table_call_every_kernel():
    called = set()
    for name, (net, _, _) in nets().items():
        called |= {
            c.kernel for c in record_calls(name, net, *examples(net, 1, 2), kernels.reference())
        }
    assert called == set(kernels.reference().functions)


def wrong_by_a_thousandth(name):
    right = kernels.reference()

    def wrong(*arguments):
        right.functions[name](*arguments)
        arguments[0][...] *= 1.001

    return right.replace("wrong", **{name: wrong})


@pytest.mark.parametrize(
    "name",
    ["conv2d_forward", "linear_backward_w", "batch_norm_r_backward", "cross_entropy_forward"],
)
def test_a_kernel_wrong_by_a_thousandth_is_beyond_its_tolerance(name):
    net = rm.conv4(n_way=3, channels=4, image=(1, 8, 8))
    call = next(
        c
        for c in record_calls("n", net, *examples(net, 2, 3), kernels.reference())
        if c.kernel == name
    )
    for kernel_set, passes in ((kernels.reference(), True), (wrong_by_a_thousandth(name), False)):
        row = kernel_table.row(call, kernel_set, {"flop": 100.0, "byte": 10.0}, 0.001)
        assert (row.error <= row.tolerance) == passes
        assert (
            isclose(row.fraction, row.rate / {"flop": 100, "byte": 10}[row.unit])
            and row.seconds.median > 0
        )


def test_rates_of_the_machine_are_positive(monkeypatch):
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    monkeypatch.setattr(machine, "SIZE", 64)
    monkeypatch.setattr(machine, "COPIED", 1 << 16)
    assert all(value > 0 for values in machine.limits(2).values() for value in values.values())
    assert {"python", "numpy", "torch", "jax", "blas"} <= set(machine.versions())


# ---- refmaml beside itself ---------------------------------------------------------------------------------------


def test_imaml_computes_five_products_and_no_pass_on_the_support_set_more():
    passes = ourselves.imaml_passes(inner_steps=3)
    assert passes["outer solve"]["hvp"] == ourselves.CG_STEPS and passes["outer solve"]["loss"] == 0
    assert passes["inner solve"]["hvp"] == 0


def test_bits_that_differ_are_different_digests():
    seat, values = (
        Seat("refmaml", "reference"),
        iter([np.zeros(3), np.zeros(3), np.array([0, 0, -0.0])]),
    )
    seat.run = lambda: next(values)
    assert len(seat.digests(3)) == 2


def test_start_up_costs_are_those_of_new_processes():
    assert startup.seconds_of("import sys; print(float('numpy' in sys.modules))") == 0
    with pytest.raises(WorkerError, match="ValueError: no"):
        startup.seconds_of("raise ValueError('no')")


# ---- the command -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(
        machine, "limits", lambda threads: {name: {1: 100.0} for name in ("sgemm", "dgemm", "copy")}
    )


def test_the_command_leaves_a_record_and_a_picture(tmp_path, capsys, small_limits):
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    assert (
        main(
            [
                "bench",
                "--only",
                "meta",
                "--workloads",
                "tiny",
                "--peers",
                "--kernels",
                "reference",
                "--seconds",
                "0.05",
                "--out",
                str(tmp_path),
            ]
        )
        == 0
    )
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {
        "schema",
        "versions",
        "machine",
        "limits",
        "kernel_set",
        "busy",
        "absent",
        "meta",
        "seconds",
    } == set(found)
    (part,) = found["meta"]
    ours_, sgemm = part["results"]
    assert set(race.Result._fields) | {"gflops"} == set(ours_) and sgemm["name"] == "sgemm"
    assert ours_["exact"] < agreement.EXACT and ours_["seconds"]["count"] >= timing.LEAST
    assert (
        isclose(part["of_sgemm"], ours_["gflops"] / sgemm["gflops"])
        and part["over_the_fastest_peer"] is None
    )
    assert (tmp_path / "bench.png").read_bytes()[1:4] == b"PNG"
    assert "Gflop/s" in capsys.readouterr().out


def test_ratios_are_those_of_the_medians():
    def result(name, seconds, exact=0.0):
        return race.Result(
            name, name, {}, timing.Spread(seconds, seconds, seconds, seconds, 3), exact=exact
        )

    part = record.workload_record(
        TINY,
        [
            result("refmaml", 2.0),
            result("sgemm", 1.0, None),
            result("slow", 8.0),
            result("fast", 5.0),
        ],
    )
    assert part["over_the_fastest_peer"] == 2.5 and part["times_as_fast_as"] == {
        "slow": 4.0,
        "fast": 2.5,
    }


def test_the_picture_takes_a_workload_on_which_nobody_was_timed(tmp_path):
    picture.write_picture(
        tmp_path / "p.png",
        [record.workload_record(TINY, [race.Result("refmaml", "refmaml", {}, refused="no")])],
    )
    assert (tmp_path / "p.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workloads", "huge"], f"--workloads: expected some of {', '.join(TABLE)}, got huge"),
        (
            ["--peers", "tensorflow"],
            f"--peers: expected some of {', '.join(PEERS)}, got tensorflow",
        ),
        (["--seconds", "soon"], "--seconds: expected a finite number > 0, got 'soon'"),
        (["--seconds", "0"], "--seconds: expected a finite number > 0, got '0'"),
    ],
)
def test_bad_input_is_one_line(options, message, capsys):
    assert main(["bench", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err == f"refmaml: {message}\n"


def test_without_threadpoolctl_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setitem(
        sys.modules, "threadpoolctl", None
    )  # Python's own mark for "must not be imported"
    assert main(["bench"]) == 2
    assert capsys.readouterr().err.startswith("refmaml: threadpoolctl: expected it to be installed")


def test_the_default_is_every_workload_but_the_small_one():
    assert set(DEFAULT) == set(TABLE) - {"tiny"}


def test_nothing_below_the_command_line_imports_the_bench():
    package = Path(rm.__file__).parent
    for file in package.rglob("*.py"):
        if file.relative_to(package).parts[0] not in ("bench", "cli"):
            assert not re.search(r"^\s*(from|import) refmaml\.bench", file.read_text(), re.M), file
