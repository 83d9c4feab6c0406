"""The doctor where a verdict is easily wrong: answers that are kept, numbers that say nothing, kinks, slow functions."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clock import Clock
from implementations import MAML, MAMLPP, K, average, maml, maml_plus_plus, one_task, reptile, tasks
from wrong_implementations import step_sizes

import refmaml as rm
from refmaml.cli import main
from refmaml.doctor import check
from refmaml.doctor.cases import Case
from refmaml.doctor.probes import own_case
from refmaml.errors import ArgumentError

METHOD = rm.MAML(0.1, 2)
ROOT = Path(__file__).parent.parent


def net_of_mine():
    return rm.Sequential([rm.Linear(3, 4), rm.Softplus(), rm.Linear(4, 2)], rm.MSE(), (3,))


def implements(net, method, change=lambda named: named):
    """A right function of (params, batch) that does something to its answer."""

    def fn(params, batch):
        exact = {n: p.astype(np.float64) for n, p in params.items()}
        named = net.named(
            method.meta_gradient(net, net.flat(exact), rm.Batch(*batch).astype(np.float64)).grad
        )
        return change({n: named[n].astype(params[n].dtype) for n in params})

    return fn


# ---- something is kept from the first call -----------------------------------------------------------------------------------


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
def test_what_is_kept_from_the_first_call_is_found_on_a_net_of_one_s_own(what, precision):
    fn = implements(net := net_of_mine(), METHOD)
    assert rm.check_meta_gradient(fn, METHOD, net=net, precision=precision, repeats=0)
    report = rm.check_meta_gradient(
        first_kept(fn, what), METHOD, net=net, precision=precision, repeats=0
    )
    assert report.verdict == "wrong" and "something is kept from the first call" in report.diagnosis


def test_only_what_was_right_is_asked_elsewhere(monkeypatch):
    """What was off at first is not said to be right there and kept from there."""
    fn = first_kept(
        implements(
            net := net_of_mine(), METHOD, lambda named: {n: 1.01 * g for n, g in named.items()}
        ),
        "answer",
    )
    monkeypatch.setattr(
        check,
        "judge",
        lambda case, misfit, earlier_right: ("inconclusive", "a kink is nearer than rounding"),
    )
    report = rm.check_meta_gradient(fn, METHOD, net=net, repeats=0)
    assert report.verdict == "inconclusive" and "kept" not in report.diagnosis


# ---- what rounding allows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [rm.Reptile(1e-3, K, optimizer="adam"), rm.Reptile(1e-5, K, optimizer="adam")]
)
def test_a_right_reptile_with_short_steps_is_right(method):
    """theta - phi_K loses what theta's own rounding is worth."""
    for seed in (0, 1):
        report = rm.check_meta_gradient(reptile, method, seed=seed, repeats=0)
        assert report.verdict == "right", report
    report = rm.check_meta_gradient(
        lambda *a: {n: 1.001 * g for n, g in reptile(*a).items()}, method, repeats=0, seconds=1
    )
    assert report.verdict == "wrong"


def steep():
    return rm.Sequential(
        [rm.Linear(3, 20), rm.Tanh(), rm.Linear(20, 20), rm.Tanh(), rm.Linear(20, 2)],
        rm.MSE(),
        (3,),
    ), rm.MAML(1.0, 10)


@pytest.mark.parametrize("answer", [0.0, 0.01])
def test_where_rounding_allows_anything_nothing_is_called_right(answer):
    net, method = steep()
    report = rm.check_meta_gradient(
        lambda params, batch: {n: np.full(p.shape, answer, np.float32) for n, p in params.items()},
        method,
        net=net,
        repeats=0,
        seconds=5,
    )
    assert report.verdict != "right" and "times" not in report.diagnosis
    if report.verdict == "inconclusive":
        assert (
            "so ill-conditioned that rounding allows errors of" in report.diagnosis
            and "step size" in report.fix
        )


def test_what_is_right_in_float64_stays_right_where_float32_cannot_tell():
    net, method = steep()
    case = own_case(net, method, None, 0)
    assert case.rounded(np.float32).blur > check.BLUR > case.blur
    report = rm.check_meta_gradient(implements(net, method), method, net=net, repeats=0)
    assert report.verdict == "right" and "ill-conditioned" in report.sittings[-1].remark


def test_float32_inside_a_float64_call_is_named():
    def half(problem, params, batch):
        batch = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in batch]
        found = maml(problem, {n: p.astype(np.float32) for n, p in params.items()}, batch)
        return {n: g.astype(np.float64) for n, g in found.items()}

    report = rm.check_meta_gradient(half, MAML, probes=("mlp", "conv"), repeats=0)
    assert report.verdict == "wrong" and report.diagnosis.startswith(
        "right to float32, not to float64"
    )


# ---- kinks ------------------------------------------------------------------------------------------------------------------


def at_a_kink():
    """A case with an input of a ReLU that rounding in float32 takes across 0."""
    net = rm.Sequential([rm.Linear(3, 4), rm.ReLU(), rm.Linear(4, 2)], rm.MSE(), (3,))
    case = own_case(net, METHOD, None, 0)
    w, b = (case.theta[net.parameters.slices[name]] for name in ("0.weight", "0.bias"))
    x = case.batch.x_query.copy()
    row = w.reshape(4, 3)[0]
    x[0, 0] -= row * (row @ x[0, 0] + b[0]) / (row @ row)
    return net, replace(case.batch, x_query=x * (1 + 1e-9))


def test_near_a_kink_an_error_that_no_flip_makes_is_wrong(monkeypatch):
    net, batch = at_a_kink()
    monkeypatch.setattr(Case, "near_kink", True)
    right = implements(net, METHOD)
    for factor, verdict in ((1.0, "right"), (1.5, "wrong")):

        def fn(params, batch, factor=factor):
            return {
                n: (factor * g + (factor - 1)).astype(np.float32)
                for n, g in right(params, batch).items()
            }

        assert (
            rm.check_meta_gradient(fn, METHOD, net=net, batch=batch, repeats=0, seconds=1).verdict
            == verdict
        )


def test_at_a_kink_a_right_answer_is_not_called_wrong():
    """Windows tie, and who wins matters: what is allowed then explains any mistake, but none was made."""
    net = rm.Sequential(
        [
            rm.Conv2d(3, 9, (3, 2), (3, 1), (2, 1)),
            rm.Conv2d(9, 5, (2, 1), (2, 3), ((2, 1), (2, 1))),
            rm.LeakyReLU(0.2),
            rm.MaxPool2d(2, (3, 2)),
            rm.BatchNorm2d(5, eps=1e-3, beta=False),
            rm.SpatialMean(),
            rm.Linear(5, 2, False),
        ],
        rm.MSE("sum/K", 0.5),
        (3, 4, 4),
    )
    report = rm.check_meta_gradient(
        implements(net, rm.MAML(0.01)), rm.MAML(0.01), net=net, repeats=0, seed=3
    )
    assert report.sittings[0].margin == 0 and report.verdict == "inconclusive"


def test_a_net_on_which_nothing_shows_is_refused():
    net = rm.Sequential([rm.Linear(3, 4, False), rm.ReLU(), rm.Linear(4, 2, False)], rm.MSE(), (3,))
    nothing = rm.Batch(*[np.zeros((2, 5, size)) for size in (3, 2, 3, 2)])
    with pytest.raises(
        ArgumentError,
        match="net: expected one in which something depends on the parameters, got a meta-gradient of 0",
    ):
        rm.check_meta_gradient(implements(net, METHOD), METHOD, net=net, batch=nothing, repeats=0)


def test_a_name_found_near_a_kink_is_not_looked_for_again(monkeypatch):
    """Time may be up by the second search."""
    fn, explained = (
        implements(
            net := net_of_mine(), METHOD, lambda named: {n: 2 * g for n, g in named.items()}
        ),
        [],
    )
    monkeypatch.setattr(
        check,
        "judge",
        lambda case, misfit, earlier_right: ("inconclusive", "a kink is nearer than rounding"),
    )
    monkeypatch.setattr(Case, "near_kink", True)
    explain = check.fit.explain
    monkeypatch.setattr(
        check.fit,
        "explain",
        lambda *a: explained.append(1) or (explain(*a) if len(explained) == 1 else []),
    )
    report = rm.check_meta_gradient(fn, METHOD, net=net, repeats=0)
    assert (
        report.verdict == "wrong"
        and report.diagnosis.startswith("the right gradient times")
        and len(explained) == 1
    )


# ---- what comes back --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [({"loss": 1.0, "acc": 0.5},), (["a", "b"],)], ids=["metrics", "texts"]
)
def test_what_cannot_be_read_beside_a_gradient_is_left_aside(more):
    report = rm.check_meta_gradient(
        lambda *a: (maml(*a), *more), MAML, probes=("quadratic",), repeats=1
    )
    assert report.verdict == "right" and any(
        "is left aside, as it is no array" in r for r in report.remarks
    )


def test_a_flat_vector_is_read_in_the_order_of_params():
    def behind_one_another(fn):
        return lambda problem, params, batch: np.concatenate(
            [fn(problem, params, batch)[n].ravel() for n in params]
        )

    assert rm.check_meta_gradient(
        behind_one_another(maml_plus_plus), MAMLPP, probes=("mlp",), repeats=0
    )

    theirs = behind_one_another(step_sizes(lambda name: 1.0))
    assert rm.check_meta_gradient(
        theirs, MAML, probes=("mlp",), layout={"*.weight": "IO"}, repeats=0
    )
    assert not rm.check_meta_gradient(
        lambda *a: behind_one_another(maml)(*a)[::-1], MAML, probes=("mlp",), repeats=0, seconds=1
    )


@pytest.mark.parametrize(
    "kept, name",
    [(slice(1, None), "the first task is left out"), (slice(-1), "the last task is left out")],
)
def test_a_task_that_is_left_out_is_named_alone_and_with_another_mistake(kept, name):
    def fn(problem, params, batch, h=None):
        return average([one_task(problem, params, *task, h=h) for task in tasks(batch)[kept]])

    report = rm.check_meta_gradient(fn, MAML, probes=("quadratic", "mlp"), repeats=0)
    assert report.verdict == "wrong" and report.diagnosis.startswith(f"{name}, times ")
    report = rm.check_meta_gradient(
        lambda *a: fn(*a, h=0.0), MAML, probes=("quadratic", "mlp"), repeats=0
    )
    assert (
        report.verdict == "wrong" and "first-order" in report.diagnosis and name in report.diagnosis
    )


# ---- calls ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, said",
    [
        (
            "import sys\ndef gradient(problem, params, batch): pass\nsys.exit(0)\n",
            "to import, got SystemExit: 0",
        ),
        (
            "def gradient(problem, params, batch): raise SystemExit(0)\n",
            "a gradient on the quadratic probe, got SystemExit: 0",
        ),
    ],
)
def test_a_script_that_ends_itself_is_not_right(tmp_path, capsys, text, said):
    (tmp_path / "mine.py").write_text(text)
    assert main(["doctor", f"{tmp_path / 'mine.py'}:gradient", "--method", "maml"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


def test_the_time_for_a_name_begins_with_the_search(monkeypatch):
    monkeypatch.setattr(check, "perf_counter", clock := Clock())

    def slow(problem, params, batch):
        clock.sleep(0.25)
        return maml(problem, params, batch, h=0.0)

    report = rm.check_meta_gradient(
        slow, MAML, probes=("quadratic", "two-layer", "mlp"), repeats=1, seconds=0.5
    )
    assert report.diagnosis.startswith("first-order")


def test_one_more_call_does_not_tell_noise_from_state():
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


def test_a_report_of_pytest_that_cannot_be_written_is_said_at_once(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "refmaml.pytest_plugin",
            "--refmaml-json",
            "nowhere/x.json",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
    )
    assert (
        done.returncode == 4
        and "--refmaml-json: expected a file in a folder that exists, got nowhere/x.json"
        in done.stderr
    )
