"""Inner loops of PyTorch: right where they are declared, named where they are not."""

import numpy as np
import pytest

import refmaml as rm

pytestmark = pytest.mark.frameworks("torch")
MAML = rm.MAML(0.1, 3)
PROBES = ("quadratic", "two-layer")


@pytest.fixture
def loops():
    return pytest.importorskip("torch_inner_loops")


def checked(fn, method=MAML, **options):
    options = {"repeats": 0, "precision": "float64", "probes": PROBES} | options
    return rm.check_meta_gradient(fn, method, framework="torch", **options)


def weights_of(T):
    return 2 * np.arange(1, T + 1) / (T + 1)


def places(k, examples):
    return np.arange(k % examples, examples, 2)


# {name: (loops -> function, the fields or arguments that declare it, its name if not)}
CHOICES = {
    "adam": (lambda t: t.maml(t.adam()), {"rule": rm.Adam()}, "Adam in the inner loop: eps=1e-8"),
    "adam, eps_root 1e-16": (
        lambda t: t.maml(t.adam(1e-16)), {"rule": rm.Adam(eps_root=1e-16)},
        "eps=1e-8, eps_root=1e-16",
    ),
    "adam, eps_root 1e-8": (
        lambda t: t.maml(t.adam(1e-8)), {"rule": rm.Adam(eps_root=1e-8)}, "eps=1e-8, eps_root=1e-8",
    ),
    "momentum": (
        lambda t: t.maml(t.momentum(0.9)), {"rule": rm.SGD(0.9)}, "momentum 0.9 in the inner loop",
    ),
    "momentum and decay": (
        lambda t: t.maml(t.momentum(0.9, 5e-4)), {"rule": rm.SGD(0.9, weight_decay=5e-4)},
        "momentum 0.9 and weight decay 0.0005",
    ),
    "nesterov": (
        lambda t: t.maml(t.momentum(0.9, nesterov=True)), {"rule": rm.SGD(0.9, nesterov=True)},
        "Nesterov momentum 0.9",
    ),
    "clipped": (
        lambda t: t.maml(t.clipped(0.2)), {"rule": rm.Clip(rm.SGD(), norm=0.2)},
        "clipped to norm 0.2, PyTorch's 1e-6",
    ),
    "weights": (
        lambda t: t.maml(t.rate(1.0), reduce=t.weighted), {"task_weights": weights_of},
        "tasks weighted",
    ),
    "mini-batches": (lambda t: t.mini_batches, {"inner_batch": places}, "mini-batches"),
    "cosine": (
        lambda t: t.maml(t.cosine), {"step_factors": (1, 0.75, 0.25)},
        "inner_lr times 1, 0.75, 0.25",
    ),
    "anchor": (lambda t: t.proximal(0.1), {"anchor": 0.1}, "anchor = 0.1"),
}  # fmt: skip
QUICK = ("momentum", "weights", "anchor")
SLOW = [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in CHOICES]
DECLARATIONS = ("task_weights", "step_factors")


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_right_where_it_is_declared(loops, name):
    make, given, _ = CHOICES[name]
    fields = {k: v for k, v in given.items() if k not in DECLARATIONS}
    options = {k: v for k, v in given.items() if k in DECLARATIONS}
    assert checked(make(loops), rm.MAML(0.1, 3, **fields), **options)


@pytest.mark.parametrize("name", SLOW)
def test_a_choice_that_is_not_declared_is_named(loops, name):
    make, _, words = CHOICES[name]
    report = checked(make(loops))
    assert report.verdict == "wrong" and words in report.diagnosis and report.fix, str(report)


def test_a_limit_that_is_not_reached_is_a_remark(loops):
    fn = loops.maml(loops.clipped(50.0, detach=True))
    report = checked(fn, rm.MAML(0.1, 3, rule=rm.Clip(rm.SGD(), norm=50.0)))
    assert report and any("limit" in remark for remark in report.remarks), str(report)
    report = checked(fn)
    assert report and any("has clamp(...): a limit" in r for r in report.remarks), str(report)


WRONG = {
    "buffer detached": (
        lambda t: t.maml(t.momentum(0.9, detach=True)), {"rule": rm.SGD(0.9)},
        "the state of SGD is detached",
    ),
    "factor detached": (
        lambda t: t.maml(t.clipped(0.2, detach=True)), {"rule": rm.Clip(rm.SGD(), norm=0.2)},
        "the clipping factor is not differentiated",
    ),
    "second moment detached": (
        lambda t: t.maml(t.adam(1e-8, detach="v")), {"rule": rm.Adam(eps_root=1e-8)},
        "the second moment of Adam is detached",
    ),
    "carried": (lambda t: t.chained, {}, "each task starts where the last one ended"),
    "lazy": (lambda t: t.lazy, {}, "one Jacobian for all steps"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_named(loops, name):
    make, fields, words = WRONG[name]
    report = checked(make(loops), rm.MAML(0.1, 3, **fields))
    assert report.verdict == "wrong" and words in report.diagnosis and report.fix, str(report)


def test_a_snapshot_without_numbers_of_its_own_carries_each_task_into_the_next(loops):
    method = rm.FirstOrderMAML(0.1, 3)
    assert checked(loops.optimizer(copied=True), method)
    report = checked(loops.optimizer(copied=False), method)
    assert "each task starts where the last one ended" in report.diagnosis, str(report)


@pytest.mark.parametrize("name", ["exp", "softplus"])
def test_step_sizes_learned_through_a_function(loops, name):
    import torch

    functions = {
        "exp": (torch.exp, torch.log),
        "softplus": (torch.nn.functional.softplus, lambda a: torch.log(torch.expm1(a))),
    }
    fn, method = loops.learned_rates(*functions[name]), rm.MetaSGD(0.1, 3)
    report = checked(fn, method)
    assert f"times {name}'(raw)" in report.diagnosis and "query gradient" not in str(report)
    assert checked(fn, method, learned_through={"inner_lr": name})
    assert checked(loops.learned_rates(torch.clone, torch.clone), method)


def test_an_error_of_pytorch_s_differentiable_optimiser_is_one_whole_sentence(loops):
    import torch

    def fn(problem, params, batch):
        theta = loops.start_of(params)
        sgd = torch.optim.SGD(theta.values(), problem.method.inner_lr, differentiable=True)
        problem.loss(theta, batch.x_support[0], batch.y_support[0]).backward()
        sgd.step()
        return theta

    with pytest.raises(rm.ArgumentError) as caught:
        checked(fn, probes=("quadratic",))
    text = str(caught.value)
    assert "in-place operation. (" in text and "test_74_doctor_torch_loops.py" in text, text
    assert "\n" not in text


# ---- returned stages -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "rule"),
    [
        (lambda t: t.adam(1e-16), rm.Adam(eps_root=1e-16)),
        (lambda t: t.momentum(0.9, 5e-4), rm.SGD(0.9, weight_decay=5e-4)),
        (lambda t: t.momentum(0.9, nesterov=True), rm.SGD(0.9, nesterov=True)),
    ],
    ids=["adam", "momentum and decay", "nesterov"],
)
def test_returned_stages_of_a_declared_rule_are_right(loops, step, rule):
    assert checked(
        loops.with_stages(step(loops)), rm.MAML(0.1, 3, rule=rule), probes=("two-layer",)
    )


def test_a_step_eight_times_too_long_is_no_wrong_inner_gradient(loops):
    report = checked(loops.with_stages(loops.rate(8.0)))
    assert "the step, 8 times too long" in report.diagnosis, str(report)
    assert any("the step, inner step 1" in finding for finding in report.findings)
    assert "inner gradient, " not in str(report)


def test_right_stages_and_a_wrong_way_back(loops):
    fn = loops.with_stages(loops.momentum(0.9, 5e-4, detach=True))
    report = checked(fn, rm.MAML(0.1, 3, rule=rm.SGD(0.9, weight_decay=5e-4)))
    assert report.verdict == "wrong" and any("way back" in f for f in report.findings), str(report)
    assert "query gradient" not in report.diagnosis


# ---- iMAML ---------------------------------------------------------------------------

SERIES = {
    "20 terms": (lambda t: t.neumann(0.1, 20), "a Neumann series of 20 terms, step 0.1"),
    "3 terms": (lambda t: t.neumann(1.0, 3), "a Neumann series of 3 terms, step 1"),
    "no step": (lambda t: t.neumann(0.1, 400, False), "without its step size 0.1 in front"),
    "never replaced": (lambda t: t.never_replaced, "an estimate that is never replaced"),
}
IMAML = rm.IMAML(2.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SERIES)
def test_a_neumann_series_is_named_with_its_numbers(loops, name):
    make, words = SERIES[name]
    report = checked(loops.implicit(make(loops)), IMAML, probes=("quadratic",))
    assert report.verdict == "wrong" and words in report.diagnosis, str(report)
    assert "query gradient" not in str(report) and report.fix


@pytest.mark.slow
def test_a_neumann_series_that_has_converged_is_right(loops):
    assert checked(loops.implicit(loops.neumann(1.0, 60)), IMAML, probes=("quadratic",))
