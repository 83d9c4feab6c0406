"""What is declared is right: rules, weights, schedules, functions of a step size. The
mistakes in a declared rule have names.
"""

import complex_step_functions as planted
import numpy as np
import pytest
from implementations import MAML, meta_sgd

import refmaml as rm

pytestmark = pytest.mark.slow

PROBES = ("quadratic", "two-layer")


def checked(fn, method=MAML, **options):
    options = {"repeats": 0, "precision": "float64", "probes": PROBES} | options
    return rm.check_meta_gradient(fn, method, **options)


def declared(**fields):
    return rm.MAML(0.1, 3, **fields)


def weights_of(T):
    return 2 * np.arange(1, T + 1) / (T + 1)


SGD, CLIP = rm.SGD(0.9), rm.Clip(rm.SGD(), norm=0.2)
RIGHT = {
    "momentum": (planted.maml(planted.momentum(0.9)), declared(rule=SGD), {}),
    "momentum and decay": (
        planted.maml(planted.momentum(0.9, 5e-4)),
        declared(rule=rm.SGD(0.9, weight_decay=5e-4)),
        {},
    ),
    "nesterov": (
        planted.maml(planted.momentum(0.9, nesterov=True)),
        declared(rule=rm.SGD(0.9, nesterov=True)),
        {},
    ),
    "adam": (planted.maml(planted.adam()), declared(rule=rm.Adam()), {}),
    "adam, eps_root": (
        planted.maml(planted.adam(root=1e-6)),
        declared(rule=rm.Adam(eps_root=1e-6)),
        {},
    ),
    "adamw": (
        planted.maml(planted.adam(decay=0.02, decoupled=True)),
        declared(rule=rm.AdamW(weight_decay=0.02)),
        {},
    ),
    "rmsprop": (planted.maml(planted.rmsprop()), declared(rule=rm.RMSprop(0.9, 1e-4)), {}),
    "clipped": (planted.maml(planted.clipped(0.2, 1e-6)), declared(rule=CLIP), {}),
    "limit never reached": (
        planted.maml(planted.clipped(50, 1e-6, detach=True)),
        declared(rule=rm.Clip(rm.SGD(), norm=50.0)),
        {},
    ),
    "anchor": (planted.proximal(0.25), declared(anchor=0.25), {}),
    "cosine": (planted.maml(planted.cosine), MAML, {"step_factors": (1, 0.75, 0.25)}),
    "mini-batches": (
        planted.meta_gradient(planted.mini_batches),
        declared(inner_batch=planted.every_second_example),
        {},
    ),
    "weights": (planted.meta_gradient(planted.weighted), MAML, {"task_weights": weights_of}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_same_choice_is_right_where_it_is_declared(name):
    fn, method, options = RIGHT[name]
    report = checked(fn, method, **options)
    assert report.ok and not any("convention" in r for r in report.remarks), str(report)


CONVENTIONS = {
    "eps_root": (
        planted.maml(planted.adam(root=1e-8, early=True)),
        declared(rule=rm.Adam(eps_root=1e-8)),
    ),
    "eps_root in clipping": (
        planted.maml(planted.adam(root=1e-8, early=True)),
        declared(rule=rm.Clip(rm.Adam(eps_root=1e-8), norm=1e3)),
    ),
    "clipping": (planted.maml(planted.clipped(0.2)), declared(rule=CLIP)),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_another_convention_of_the_declared_rule_is_right_with_a_remark(name):
    fn, method = CONVENTIONS[name]
    report = checked(fn, method)
    assert report.ok and any("a convention, no mistake" in r for r in report.remarks), str(report)
    wrong = planted.maml(planted.clipped(0.21))
    assert checked(wrong, method, probes=("quadratic",), seconds=0.1).verdict == "wrong"


WRONG_FORMS = {
    "buffer detached": (
        planted.maml(planted.momentum(0.9, detach=True)),
        declared(rule=SGD),
        "the state of SGD is detached",
    ),
    "another momentum": (
        planted.maml(planted.momentum(0.95)),
        declared(rule=SGD),
        "momentum 0.95 in the inner loop",
    ),
    "average": (
        planted.maml(planted.momentum(0.9, average=True)),
        declared(rule=SGD),
        "momentum is an average",
    ),
    "moments detached": (
        planted.maml(planted.adam(detach="m and v")),
        declared(rule=rm.Adam()),
        "the state of Adam is detached",
    ),
    "v detached": (
        planted.maml(planted.adam(root=1e-8, detach="v")),
        declared(rule=rm.Adam(eps_root=1e-8)),
        "the second moment of Adam is detached",
    ),
    "eps inside": (
        planted.maml(planted.adam(eps=0, root=1e-4)),
        declared(rule=rm.Adam(eps=1e-4)),
        "eps is inside the root",
    ),
    "eps outside": (
        planted.maml(planted.adam(eps=1e-4)),
        declared(rule=rm.Adam(eps=0.0, eps_root=1e-4)),
        "eps_root is outside the root",
    ),
    "no correction": (
        planted.maml(planted.adam(correction=False)),
        declared(rule=rm.Adam()),
        "Adam without its bias correction",
    ),
    "decay in the moments": (
        planted.maml(planted.adam(decay=0.02)),
        declared(rule=rm.AdamW(weight_decay=0.02)),
        "weight decay passes through the moments",
    ),
    "decay beside the moments": (
        planted.maml(planted.adam(decay=0.02, decoupled=True)),
        declared(rule=rm.Adam(weight_decay=0.02)),
        "weight decay is beside Adam",
    ),
    "factor detached": (
        planted.maml(planted.clipped(0.2, 1e-6, detach=True)),
        declared(rule=CLIP),
        "the clipping factor is not differentiated",
    ),
    "not clipped": (
        planted.maml(planted.momentum(0.9)),
        declared(rule=rm.Clip(SGD, norm=0.2)),
        "the gradients are not clipped",
    ),
}


@pytest.mark.parametrize("name", WRONG_FORMS)
def test_a_mistake_in_a_declared_rule_has_its_name(name):
    fn, method, words = WRONG_FORMS[name]
    report = checked(fn, method)
    assert report.verdict == "wrong" and words in report.diagnosis, str(report)


UNDER_CONVENTIONS = {
    "v detached": (
        planted.maml(planted.adam(root=1e-8, early=True, detach="v")),
        declared(rule=rm.Adam(eps_root=1e-8)),
        "the second moment of Adam is detached",
    ),
    "factor detached": (
        planted.maml(planted.clipped(0.2, detach=True)),
        declared(rule=CLIP),
        "the clipping factor is not differentiated",
    ),
}


@pytest.mark.parametrize("name", UNDER_CONVENTIONS)
def test_a_mistake_under_another_convention_has_its_name_too(name):
    fn, method, words = UNDER_CONVENTIONS[name]
    report = checked(fn, method)
    assert words in report.diagnosis, str(report)
    assert any("a convention, no mistake" in remark for remark in report.remarks)


# ---- step sizes that are a function of what is learned -------------------------------


def learned(derivative):
    """Meta-SGD whose gradient is that of raw, with f'(raw) as a function of the
    size.
    """

    def fn(problem, params, batch):
        out = meta_sgd(problem, params, batch)
        factor = {n: derivative(p) if n.startswith("inner_lr.") else 1 for n, p in params.items()}
        return {n: factor[n] * g for n, g in out.items()}

    return fn


THROUGH = {
    "exp": lambda A: A,
    "softplus": lambda A: 1 - np.exp(-A),
    "sigmoid": lambda A: A * (1 - A),
    "square": lambda A: 2 * np.sqrt(A),
}
META_SGD = rm.MetaSGD(0.1, 3)


@pytest.mark.parametrize("name", THROUGH)
def test_a_step_size_learned_through_a_function_is_named_and_right_when_declared(name):
    fn = learned(THROUGH[name])
    report = checked(fn, META_SGD)
    assert report.verdict == "wrong" and f"times {name}'(raw)" in report.diagnosis, str(report)
    assert "query gradient" not in str(report) and f'"{name}"' in report.fix
    assert checked(fn, META_SGD, learned_through={"inner_lr": name})
    assert checked(fn, META_SGD, learned_through={"inner_lr": THROUGH[name]})
    plain = checked(learned(np.ones_like), META_SGD, learned_through={"inner_lr": name})
    assert "without the factor of its function" in plain.diagnosis, str(plain)


def test_an_error_in_the_step_sizes_gradient_is_no_query_gradient():
    fn = learned(lambda A: 1 + 0.3 * np.sin(np.arange(A.size)).reshape(A.shape))
    report = checked(fn, META_SGD, seconds=1)
    assert report.stages[0][0] == "step sizes' gradient", str(report)


# ---- declarations that mean nothing --------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options", "words"),
    [
        (MAML, {"learned_through": {"inner_lr": "exp"}}, "a method that learns step sizes"),
        (META_SGD, {"learned_through": {"inner_lr": "log"}}, "one of exp, softplus"),
        (META_SGD, {"learned_through": {"alpha": "exp"}}, "the name ['alpha']"),
        (META_SGD, {"learned_through": "exp"}, "learned_through: expected"),
        (MAML, {"task_weights": (1, 2)}, "5 finite numbers"),
        (MAML, {"task_weights": "equal"}, "task_weights: expected numbers"),
        (MAML, {"step_factors": (1, 0.5)}, "3 numbers > 0"),
        (META_SGD, {"step_factors": (1, 0.5, 1)}, "one step size that is not learned"),
    ],
)
def test_declarations_without_a_meaning_are_refused_in_one_line(method, options, words):
    with pytest.raises(rm.ArgumentError) as caught:
        checked(lambda *a: None, method, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("given", [lambda k, n: [n], lambda k, n: [], lambda k, n: [0.5]])
def test_places_outside_of_the_support_set_are_refused(given):
    with pytest.raises(rm.ArgumentError, match="inner_batch: expected places"):
        rm.MAML(0.1, 2, inner_batch=given).mini_batches(5)


def test_an_error_below_float32_is_not_called_float32():
    """1e-16 under the root changes the gradient by 1e-12."""
    fn = planted.maml(planted.adam(root=1e-16))
    report = checked(fn, declared(rule=rm.Adam()), seconds=2)
    assert report.verdict == "wrong" and "float32" not in report.diagnosis, str(report)
