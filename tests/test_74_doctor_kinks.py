"""Near a kink a flipped choice is no mistake, and a mistake is named."""

from dataclasses import replace

import numpy as np
import pytest
from own_net_functions import METHOD, implements, small_net

import refmaml as rm
from refmaml.doctor import case_runs, diagnosis
from refmaml.doctor.builtin_cases import own_case
from refmaml.doctor.cases import Case
from refmaml.errors import ArgumentError


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
    """Entries of pooling windows tie, so a flipped choice may change anything."""
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
    assert report.results[0].margin == 0 and report.verdict == "inconclusive"


def test_a_net_with_a_zero_meta_gradient_is_refused():
    net = rm.Sequential([rm.Linear(3, 4, False), rm.ReLU(), rm.Linear(4, 2, False)], rm.MSE(), (3,))
    nothing = rm.Batch(*[np.zeros((2, 5, size)) for size in (3, 2, 3, 2)])
    with pytest.raises(
        ArgumentError,
        match="net: expected one in which something depends on the parameters, "
        "got a meta-gradient of 0",
    ):
        rm.check_meta_gradient(implements(net, METHOD), METHOD, net=net, batch=nothing, repeats=0)


def test_a_name_found_near_a_kink_is_not_searched_for_twice(monkeypatch):
    """The time of the search may be up by a second one."""
    fn, explained = (
        implements(net := small_net(), METHOD, lambda named: {n: 2 * g for n, g in named.items()}),
        [],
    )
    monkeypatch.setattr(
        case_runs,
        "judge",
        lambda case, misfit, earlier_right: ("inconclusive", "a kink is nearer than rounding"),
    )
    monkeypatch.setattr(Case, "near_kink", True)
    explain = diagnosis.explain
    monkeypatch.setattr(
        diagnosis,
        "explain",
        lambda *a: explained.append(1) or (explain(*a) if len(explained) == 1 else []),
    )
    report = rm.check_meta_gradient(fn, METHOD, net=net, repeats=0)
    assert (
        report.verdict == "wrong"
        and report.diagnosis.startswith("the right gradient times")
        and len(explained) == 1
    )


def test_a_known_mistake_is_named_even_where_a_kink_lies_on_the_data():
    """A blank image makes ties in all units: the margin is 0.

    A first-order gradient is still wrong.
    """
    net = rm.Sequential([rm.Linear(3, 4), rm.ReLU(), rm.Linear(4, 2)], rm.MSE(), (3,))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 3))
    x[:, 0] = 0  # with biases of 0 every unit sits on its kink
    batch = rm.Batch(x, rng.standard_normal((2, 6, 2)), x, rng.standard_normal((2, 6, 2)))

    def flat(fn):
        return lambda params, given: net.named(
            fn.meta_gradient(net, net.flat(params), rm.Batch(*given)).grad
        )

    method = rm.MAML(0.3, 2)
    report = rm.check_meta_gradient(
        flat(rm.FirstOrderMAML(0.3, 2)), method, net=net, batch=batch, repeats=0
    )
    assert (
        report.results[0].margin == 0
        and report.verdict == "wrong"
        and report.diagnosis.startswith("first-order")
    )

    def other(params, given):
        return {
            n: g * (1 + 0.1 * np.sin(np.arange(g.size)).reshape(g.shape))
            for n, g in flat(method)(params, given).items()
        }

    assert (
        rm.check_meta_gradient(other, method, net=net, batch=batch, repeats=0, seconds=1).verdict
        == "inconclusive"
    )
