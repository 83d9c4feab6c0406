"""benchmarks/cost_growth.py: its measure of memory, and the files it writes."""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import refmaml as rm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc"),
]
PLANTED = 50e6  # bytes
# Linux adds up the memory of threads at intervals, and freed memory returns to the
# system page by page: runs differed by up to 1.7 MB. The mistakes that must be found
# (memory that is freed, counted twice, or not counted at all) are 45 MB and more.
SLACK = 3e6
SMALL = {"inner_steps": 2, "tasks": 4, "shots": 1, "image": 28, "channels": 4, "cg_steps": 2}


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import cost_growth

    return cost_growth


def in_new_process(run, *args):
    """run(*args) in a new process, as in the benchmark.

    Memory that threads of other tests free meanwhile would count as well.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(run, *args).result()


def one_array():
    return np.ones(int(PLANTED), np.uint8)


def many_small_ones():
    return [np.ones(1000, np.uint8) for _ in range(int(PLANTED / 1000))]


def one_after_the_other(parts=10):
    """As much memory in all, but never more than one part of it at once."""
    for _ in range(parts):
        np.ones(int(PLANTED / parts), np.uint8)


def second_peak(make):
    from refmaml.bench.memory import peak_memory

    peak_memory(make)  # an earlier peak and freed memory must not change the result
    return peak_memory(make)


@pytest.mark.parametrize(
    "make,low,high",
    [(one_array, 1.0, 1.0), (many_small_ones, 1.0, 1.25), (one_after_the_other, 0.1, 0.1)],
)
def test_peak_memory_is_the_largest_amount_at_once(growth, make, low, high):
    assert low * PLANTED - SLACK <= in_new_process(second_peak, make) <= high * PLANTED + SLACK


class NeedsMemory(rm.MAML):
    def task_gradients(self, net, *args):
        extra = one_array()
        return super().task_gradients(net, *args) if extra.all() else None


class KeepsMemory(rm.MAML):
    def task_gradients(self, net, *args):
        net.extra = getattr(net, "extra", None) or [one_array()]
        return super().task_gradients(net, *args)


def measured_of(kind):
    import cost_growth

    cost_growth.METHODS["MAML, stored"] = lambda p: kind(0.01, p["inner_steps"])
    return cost_growth.measure("MAML, stored", SMALL, "reference")


@pytest.mark.parametrize("kind", [NeedsMemory, KeepsMemory])
def test_fifty_megabytes_in_a_method_or_kept_with_its_net_are_measured(growth, kind):
    honest, wasteful = in_new_process(measured_of, rm.MAML), in_new_process(measured_of, kind)
    assert (
        honest["peak_mb"] < 10
        and abs((wasteful["peak_mb"] - honest["peak_mb"]) * 1e6 - PLANTED) < SLACK
    )


def test_a_solve_that_ends_early_is_refused(growth, monkeypatch):
    monkeypatch.setitem(
        growth.METHODS, "iMAML", lambda p: rm.IMAML(100.0, 2, 0.01, cg_steps=5, cg_tol=1.0)
    )
    with pytest.raises(
        rm.ArgumentError, match="iMAML: expected every CG iteration to be run, got converged"
    ):
        growth.measure("iMAML", SMALL, "reference")


@pytest.mark.parametrize("power", [0, 1, 2])
def test_exponents_are_those_of_powers(growth, power):
    values = [1, 2, 5, 16]
    assert growth.exponent(values, [3.0 * n**power for n in values]) == pytest.approx(
        power, abs=1e-12
    )


def test_a_quick_run_writes_its_results_with_their_settings(growth, tmp_path):
    growth.main(["--quick", "--kernels", "reference", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "cost_growth.json").read_text())
    assert (tmp_path / "cost_growth.png").read_bytes().startswith(b"\x89PNG")
    assert (
        result["versions"]["refmaml"] == rm.__version__
        and result["base"] == growth.QUICK_BASE
        and result["kernels"] == "reference"
    )
    for quantity, values in growth.QUICK.items():
        sweep = result["sweeps"][quantity]
        assert sweep["values"] == values
        assert sweep.keys() - {"values"} == (
            {"iMAML"} if quantity == "cg_steps" else growth.METHODS.keys()
        )
        assert all(
            x > 0
            for name in sweep
            if name != "values"
            for cost in ("seconds", "peak_mb")
            for x in sweep[name][cost]
        )
    steps = {
        name: sweep["peak_mb"]
        for name, sweep in result["sweeps"]["inner_steps"].items()
        if name != "values"
    }
    added = {name: after - before for name, (before, after) in steps.items()}
    assert added["MAML, stored"] > 5 * max(x for name, x in added.items() if name != "MAML, stored")
