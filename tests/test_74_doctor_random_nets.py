"""The doctor on nets that Hypothesis draws.

A right gradient is never called wrong, and a mistake gets its name.
"""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from random_nets import drawing, methods, nets

import refmaml as rm
from refmaml import kernels
from refmaml.doctor.builtin_cases import own_case
from refmaml.errors import ArgumentError
from refmaml.oracles.wrong_gradients import wrong_gradients

CPU, SEEDS, DIVERGED = kernels.cpu(), st.integers(0, 2**16), 1e6
NAMES = {
    "first-order gradient": "first-order: the second-order term is missing",
    "H doubled": "the Hessian counts twice",
    "H's sign flipped": "the Hessian has the wrong sign",
    "summed over tasks": "the right gradient times B (B = the number of tasks)",
}


def drawn_case(net, method, seed):
    """The doctor's own Case of a net whose meta-gradient is not 0."""
    try:
        return own_case(net, method, None, seed)
    except ArgumentError:
        assume(False)


def verdict(case, gradient, seed, **options):
    """The Report on a function (net, meta, batch) -> gradient in any precision."""

    def fn(params, batch):
        dtype = next(iter(params.values())).dtype
        named = case.named(gradient(case.net, case.flat(params).astype(dtype), rm.Batch(*batch)))
        return {name: a.astype(dtype) for name, a in named.items()}

    return rm.check_meta_gradient(fn, case.method, net=case.net, repeats=0, seed=seed, **options)


@pytest.mark.slow
@drawing(25)
@given(st.data(), SEEDS)
def test_other_kernels_are_never_called_wrong(data, seed):
    """In float64, then in float32."""
    net = data.draw(nets(data.draw(st.booleans())))
    case = drawn_case(net, method := data.draw(methods(net)), seed)
    report = verdict(
        case,
        lambda net, meta, batch: method.meta_gradient(net.with_kernels(CPU), meta, batch).grad,
        seed,
        seconds=1,
    )
    assert report.verdict != "wrong", report


def test_an_answer_is_not_called_right_to_float32_where_float32_is_ill_conditioned():
    """A diverging inner loop loses all of float32's digits, and eleven of float64's."""
    net = rm.Sequential(
        [
            rm.Conv2d(3, 5, (3, 1), (2, 3), bias=False),
            rm.Softplus(),
            rm.Conv2d(5, 5, 1),
            rm.Tanh(),
            rm.BatchNorm2d(5, beta=False),
            rm.Conv2d(5, 1, 1, bias=False),
            rm.Flatten(),
            rm.Linear(2, 2, False),
        ],
        rm.MSE("sum"),
        (3, 3, 4),
    )
    case = own_case(net, rm.MAML(0.1, 3), None, 2629)
    report = verdict(
        case, wrong_gradients(case.method, net)["H doubled"], 2629, precision="float64", seconds=30
    )
    assert case.with_(dtype=np.float32).relative_allowance > 1 and report.diagnosis.startswith(
        NAMES["H doubled"]
    )


@pytest.mark.slow
@drawing(15)
@given(
    nets(), SEEDS, st.integers(1, 3), st.sampled_from([0.01, 0.1]), st.sampled_from(sorted(NAMES))
)
def test_a_mistake_has_its_name(net, seed, K, inner_lr, name):
    case = drawn_case(net, rm.MAML(inner_lr, K), seed)
    wrong = wrong_gradients(case.method, net)[name]
    g, truth = wrong(net, case.meta, case.batch), case.truth
    assume(np.abs(g).max() < DIVERGED and np.abs(truth).max() < DIVERGED)
    along = np.linalg.norm(g) * np.linalg.norm(truth) <= (1 + 1e-9) * abs(g @ truth)
    assume(
        not along or name == "summed over tasks"
    )  # else it is a right gradient times a number, too
    report = verdict(case, wrong, seed, precision="float64", seconds=30)
    assert report.verdict == "inconclusive" or (
        report.verdict,
        report.diagnosis[: len(NAMES[name])],
    ) == ("wrong", NAMES[name]), report
