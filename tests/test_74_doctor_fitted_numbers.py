"""Mistakes with numbers of their own get a name with the fitted numbers, whatever the
numbers are. The same code is right where they are declared: test_74_doctor_declared.py.
"""

import complex_step_functions as planted
import pytest
from implementations import MAML

import refmaml as rm
from refmaml.doctor import fitted_mistakes
from refmaml.doctor.builtin_cases import builtin_case
from refmaml.doctor.dictionary import candidate
from refmaml.doctor.mistakes.family import Family, Number

pytestmark = pytest.mark.slow

PROBES = ("quadratic", "two-layer")


def checked(fn, method=MAML, **options):
    options = {"repeats": 0, "precision": "float64", "probes": PROBES} | options
    return rm.check_meta_gradient(fn, method, **options)


UNDECLARED = {
    "rate 8": (planted.maml(planted.rate(8)), "the step, 8 times too long"),
    "rate .3": (planted.maml(planted.rate(0.3)), "multiplied by 0.3"),
    "rate -3": (planted.maml(planted.rate(-3)), "in the wrong direction"),
    "own step size": (planted.own_step_size(0.037), "step size is 0.037, a constant"),
    "momentum .5": (planted.maml(planted.momentum(0.5)), "momentum 0.5 in the inner loop"),
    "momentum .9": (planted.maml(planted.momentum(0.9)), "momentum 0.9 in the inner loop"),
    "momentum and decay": (
        planted.maml(planted.momentum(0.9, 5e-4)),
        "momentum 0.9 and weight decay 0.0005",
    ),
    "nesterov": (planted.maml(planted.momentum(0.8, nesterov=True)), "Nesterov momentum 0.8"),
    "average": (planted.maml(planted.momentum(0.7, average=True)), "momentum 0.7 as an average"),
    "buffer detached": (
        planted.maml(planted.momentum(0.9, detach=True)),
        "momentum 0.9 in the inner loop, its buffer detached",
    ),
    "momentum and decay, detached": (
        planted.maml(planted.momentum(0.9, 5e-4, detach=True)),
        "momentum 0.9 and weight decay 0.0005 in the inner loop, its buffer detached",
    ),
    "momentum, first-order": (
        planted.maml(planted.momentum(0.6), first_order=True),
        "momentum 0.6 in the inner loop, first-order",
    ),
    "decay .02": (planted.maml(planted.decay(0.02)), "weight decay 0.02 in the inner loop"),
    "decay, detached": (
        planted.maml(planted.decay(0.03, detach=True)),
        "weight decay 0.03 in the inner loop, not differentiated",
    ),
    "shrinking": (planted.maml(planted.decay(0.01, own=True)), "parameters shrink by 0.01"),
    "limit 3": (planted.maml(planted.clipped(0.03)), "clipped to norm 0.03"),
    "clipped as in torch": (
        planted.maml(planted.clipped(0.2, 1e-6)),
        "clipped to norm 0.2, PyTorch's 1e-6",
    ),
    "clipped, constant": (
        planted.maml(planted.clipped(0.2, 1e-6, detach=True)),
        "clipped to norm 0.2, PyTorch's 1e-6 added to it, the clipping not differentiated",
    ),
    "clipped array by array": (
        planted.maml(planted.clipped(0.15, per_tensor=True)),
        "clipped to norm 0.15, each array by its own norm",
    ),
    "entries": (planted.maml(planted.entries(0.07)), "entries are clipped to [-0.07, 0.07]"),
    "adam": (planted.maml(planted.adam()), "Adam in the inner loop: eps=1e-8"),
    "adam, eps 1e-3": (planted.maml(planted.adam(eps=1e-3)), "Adam in the inner loop: eps=0.001"),
    "adam, eps_root": (
        planted.maml(planted.adam(root=1e-6)),
        "Adam in the inner loop: eps=1e-8, eps_root=1e-6",
    ),
    "adam, early eps_root": (
        planted.maml(planted.adam(root=1e-8, early=True)),
        "eps=1e-8, eps_root=1e-8, eps_root added before the bias correction",
    ),
    "adam, betas": (planted.maml(planted.adam(b1=0.8, b2=0.95)), "beta1=0.8, beta2=0.95, eps=1e-8"),
    "adam, no correction": (
        planted.maml(planted.adam(correction=False)),
        "Adam in the inner loop: eps=1e-8, without bias correction",
    ),
    "adam, v detached": (
        planted.maml(planted.adam(root=1e-8, detach="v")),
        "its denominator not differentiated",
    ),
    "adamw": (
        planted.maml(planted.adam(decay=0.02, decoupled=True)),
        "AdamW in the inner loop: eps=1e-8, weight_decay=0.02",
    ),
    "rmsprop": (planted.maml(planted.rmsprop()), "RMSprop in the inner loop: alpha=0.9, eps=0.000"),
    "cosine": (
        planted.maml(planted.cosine),
        "differs from step to step: inner_lr times 1, 0.75, 0.25",
    ),
    "anchor": (planted.proximal(0.25), "with anchor = 0.25"),
    "hessian": (planted.hessian_times(0.85), "the Hessian counts 0.85 times"),
    "weights": (planted.meta_gradient(planted.weighted), "tasks weighted"),
    "carried": (planted.chained(True), "each task starts where the last one ended"),
    "carried, detached": (
        planted.chained(False),
        "each task starts where the last one ended, not differentiated",
    ),
    "lazy": (planted.meta_gradient(planted.lazy), "one Jacobian for all steps"),
    "mini-batches": (planted.meta_gradient(planted.mini_batches), "mini-batches"),
}


QUICK = ("rate 8", "own step size", "momentum .5", "decay .02", "anchor", "weights", "carried")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in UNDECLARED]
)
def test_an_undeclared_choice_is_wrong_and_named_with_its_numbers(name):
    fn, words = UNDECLARED[name]
    report = checked(fn)
    assert report.verdict == "wrong" and words in report.diagnosis, str(report)
    assert report.fix, str(report)


# ---- a fit is named only where it is unique and at the noise floor
# --------------------


def test_a_fit_above_the_noise_floor_is_no_name():
    right = planted.maml(planted.momentum(0.5))

    def off(problem, params, batch):
        out = right(problem, params, batch)
        out["0.weight"].flat[0] *= 1 + 1e-9
        return out

    assert "momentum 0.5" in checked(right, probes=("quadratic",)).diagnosis
    report = checked(off, probes=("quadratic",), seconds=3)
    assert report.verdict == "wrong" and report.diagnosis.startswith("no mistake"), str(report)


def test_two_numbers_that_fit_as_well_cannot_be_distinguished(monkeypatch):
    """A family in which c and -c are the same."""
    even = Family(
        "11",
        lambda c: f"c = {c:g}",
        (Number("c", (0.4, -0.4)),),
        lambda case, c: {"rate": 1 + c * c},
        lambda c: {},
    )
    case = builtin_case("quadratic", MAML)
    g = candidate(case, {"rate": 1.25})
    monkeypatch.setattr(fitted_mistakes, "families", lambda method: [even])
    names = sorted(map(str, fitted_mistakes.explain_by_fit([case], [g])))
    assert names == ["c = -0.5", "c = 0.5"]
