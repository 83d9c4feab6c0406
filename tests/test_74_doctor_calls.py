"""Calls that depend on each other: noise, state, cached values, growing memory.

No verdict depends on a clock.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clock import Clock
from implementations import MAML, maml, tasks
from own_net_functions import METHOD, implements, small_net
from torch_implementations import torch_maml

import refmaml as rm
from refmaml.doctor import case_runs, check, examination, repeats

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_noise_is_distinguished_from_carried_state():
    rng, calls = np.random.default_rng(0), []

    def noisy(problem, params, batch):
        return {
            n: g * (1 + 1e-3 * rng.standard_normal(g.shape))
            for n, g in maml(problem, params, batch).items()
        }

    def carrying(problem, params, batch):
        calls.append(1)
        return {n: g * (1 + 0.01 * len(calls)) for n, g in maml(problem, params, batch).items()}

    report = rm.check_meta_gradient(noisy, MAML, probes=("quadratic",), precision="float64")
    assert report.verdict == "wrong" and "noise" in report.diagnosis
    report = rm.check_meta_gradient(carrying, MAML, probes=("quadratic",), precision="float64")
    assert report.verdict == "wrong" and "state is carried" in report.diagnosis


def keeping(kept, value):
    """A right function that keeps value(gradients) of every call."""

    def function(problem, params, batch):
        out = maml(problem, params, batch)
        kept.append(value(out))
        return out

    return function


def parameter_vector(out):
    return np.concatenate([g.ravel() for g in out.values()])


QUICK = {"probes": ("quadratic",), "precision": "float64"}


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [None, rm.kernels.cpu()], ids=["reference", "cpu"])
def test_a_leak_of_one_parameter_vector_a_call_is_reported(kernels):
    fn = keeping([], parameter_vector)
    report = rm.check_meta_gradient(fn, MAML, kernels=kernels, **QUICK)
    assert report.ok and "memory grows by 56 bytes with every call" in report.diagnosis


@pytest.mark.slow
def test_a_leak_of_python_objects_is_reported():
    fn = keeping([], lambda out: [float(x) for _ in range(20) for x in parameter_vector(out)])
    assert "memory grows by" in rm.check_meta_gradient(fn, MAML, **QUICK).diagnosis


@pytest.mark.slow
def test_a_right_function_has_no_growing_memory():
    for kernels in (None, rm.kernels.cpu()):
        report = rm.check_meta_gradient(maml, MAML, kernels=kernels, **QUICK)
        assert report.ok and not report.remarks


@pytest.mark.slow
def test_compiled_kernels_that_fill_their_caches_are_no_leak():
    """In a new process, Python's and Numba's own memory grows in the first calls."""
    code = (
        "import refmaml as rm; from implementations import MAML, maml; "
        "print(rm.check_meta_gradient(maml, MAML, kernels=rm.kernels.cpu(), "
        "probes=('quadratic',), precision='float64').remarks)"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout == "()\n", done.stdout + done.stderr


@pytest.mark.slow
def test_growth_must_continue_through_the_confirming_calls():
    """Memory that grows in the first twenty calls, as a cache does, is no leak."""
    made = []
    for stops_at, expected in ((20, None), (1000, (1000, "bytes"))):
        made.clear()

        def read(stops_at=stops_at):
            return (1000 * min(len(made), stops_at),)

        memory = repeats.Memory(("bytes",), (512,), (repeats.CONFIRMING,), read)
        assert repeats.growth(lambda: made.append(1), 6, memory) == expected
    assert len(made) == 6 + repeats.CONFIRMING


def test_the_number_of_repeats_does_not_depend_on_how_long_a_call_takes(monkeypatch):
    """Each call takes 100 s by every clock that the doctor might read."""
    clock, kept = Clock(), []
    for module in (repeats, examination, check):
        for name in ("perf_counter", "process_time", "monotonic", "time"):
            monkeypatch.setattr(module, name, clock, raising=False)

    def slow(problem, params, batch):
        clock.sleep(100.0)
        kept.append(np.ones(1000))
        return maml(problem, params, batch)

    report = rm.check_meta_gradient(slow, MAML, **QUICK)
    assert len(kept) == 7 and "memory grows by 8000 bytes" in report.diagnosis


@pytest.mark.frameworks("torch")
def test_a_graph_kept_in_torch_is_reported():
    losses = []

    def keeping(problem, params, batch):
        losses.append(
            problem.loss(
                {n: p.clone().requires_grad_() for n, p in params.items()}, *tasks(batch)[0][:2]
            )
        )
        return torch_maml(problem, params, batch)

    report = rm.check_meta_gradient(
        keeping, MAML, framework="torch", probes=("quadratic",), precision="float64"
    )
    assert report.ok and "tensors with every call" in report.diagnosis
    assert (
        "memory"
        not in rm.check_meta_gradient(
            torch_maml, MAML, framework="torch", probes=("quadratic",), precision="float64"
        ).diagnosis
    )


def test_a_single_repeat_does_not_distinguish_noise_from_state():
    state = [0.0]

    def moving(problem, params, batch):
        state[0] += 0.1
        return {n: g + state[0] for n, g in maml(problem, params, batch).items()}

    report = rm.check_meta_gradient(moving, MAML, probes=("quadratic",), repeats=1)
    assert report.verdict == "wrong" and "state is carried over, or noise" in report.diagnosis
    assert (
        "moves on from call to call"
        in rm.check_meta_gradient(moving, MAML, probes=("quadratic",), repeats=3).diagnosis
    )


def first_kept(fn, what):
    """fn with its parameters, its batch or its answer kept from the first call on."""
    kept = []

    def stale(params, batch):
        kept.append((params, batch, fn(params, batch)))
        of_then = {n: a.astype(params[n].dtype) for n, a in kept[0][0].items()}
        batch_then = rm.Batch(*kept[0][1]).astype(batch[0].dtype)
        return {
            "params": lambda: fn(of_then, batch),
            "batch": lambda: fn(params, batch_then.sets[0] + batch_then.sets[1]),
            "answer": lambda: {n: a.astype(params[n].dtype) for n, a in kept[0][2].items()},
        }[what]()

    return stale


@pytest.mark.parametrize("what", ["params", "batch", "answer"])
@pytest.mark.parametrize("precision", [None, "float32"])
def test_values_kept_from_the_first_call_are_found_on_an_own_net(what, precision):
    fn = implements(net := small_net(), METHOD)
    assert rm.check_meta_gradient(fn, METHOD, net=net, precision=precision, repeats=0)
    report = rm.check_meta_gradient(
        first_kept(fn, what), METHOD, net=net, precision=precision, repeats=0
    )
    assert report.verdict == "wrong" and "something is kept from the first call" in report.diagnosis


def test_only_a_right_function_is_called_at_other_parameters(monkeypatch):
    """A function that is off on the first call is not called right there."""
    fn = first_kept(
        implements(
            net := small_net(), METHOD, lambda named: {n: 1.01 * g for n, g in named.items()}
        ),
        "answer",
    )
    monkeypatch.setattr(
        case_runs,
        "judge",
        lambda case, misfit, earlier_right: ("inconclusive", "a kink is nearer than rounding"),
    )
    report = rm.check_meta_gradient(fn, METHOD, net=net, repeats=0)
    assert report.verdict == "inconclusive" and "kept" not in report.diagnosis


def test_the_time_for_a_name_begins_with_the_search(monkeypatch):
    monkeypatch.setattr(examination, "process_time", clock := Clock())

    def slow(problem, params, batch):
        clock.sleep(0.25)
        return maml(problem, params, batch, h=0.0)

    report = rm.check_meta_gradient(
        slow, MAML, probes=("quadratic", "two-layer", "mlp"), repeats=1, seconds=0.5
    )
    assert report.diagnosis.startswith("first-order")
