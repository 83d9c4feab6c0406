"""Arguments of update rules: one-line errors, copies, equality, texts."""

import copy
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

import refmaml as rm
from refmaml import update_rules
from refmaml.oracles import method_checks, rule_checks

NET, THETA, BATCH = rule_checks.smooth_case()
FRACTION, NOT_NEGATIVE = "expected a number in [0, 1)", "expected a finite number >= 0"
REFUSED = [
    (lambda: rm.SGD(momentum=-0.1), f"momentum: {NOT_NEGATIVE}, got -0.1"),
    (lambda: rm.SGD(momentum=float("nan")), f"momentum: {NOT_NEGATIVE}, got nan"),
    (lambda: rm.SGD(momentum="0.9"), f"momentum: {NOT_NEGATIVE}, got '0.9'"),
    (lambda: rm.SGD(momentum=True), f"momentum: {NOT_NEGATIVE}, got True"),
    (lambda: rm.SGD(dampening=-1), f"dampening: {NOT_NEGATIVE}, got -1"),
    (lambda: rm.SGD(weight_decay=-1), f"weight_decay: {NOT_NEGATIVE}, got -1"),
    (lambda: rm.SGD(nesterov=True), "nesterov: expected False, or momentum > 0 and dampening = 0"),
    (
        lambda: rm.SGD(0.9, 0.1, nesterov=True),
        "nesterov: expected False, or momentum > 0 and dampening = 0, got momentum=0.9",
    ),
    (lambda: rm.SGD(0.9, nesterov=1), "nesterov: expected"),
    (lambda: rm.Adam(0.9), "betas: expected two numbers in [0, 1), got 0.9"),
    (lambda: rm.Adam((0.9,)), "betas: expected two numbers in [0, 1), got (0.9,)"),
    (lambda: rm.Adam((1.0, 0.9)), f"betas[0]: {FRACTION}, got 1.0"),
    (lambda: rm.Adam((0.9, -0.1)), f"betas[1]: {FRACTION}, got -0.1"),
    (lambda: rm.Adam(eps=-1e-8), f"eps: {NOT_NEGATIVE}, got -1e-08"),
    (lambda: rm.Adam(eps=0), "eps: expected a number > 0 (or eps_root > 0), got 0"),
    (lambda: rm.Adam(eps_root=float("inf")), f"eps_root: {NOT_NEGATIVE}, got inf"),
    (lambda: rm.AdamW(weight_decay=-0.1), f"weight_decay: {NOT_NEGATIVE}, got -0.1"),
    (lambda: rm.RMSprop(alpha=1.0), f"alpha: {FRACTION}, got 1.0"),
    (lambda: rm.RMSprop(eps=0), "eps: expected a number > 0 (or eps_root > 0), got 0"),
    (lambda: rm.RMSprop(momentum=-1), f"momentum: {NOT_NEGATIVE}, got -1"),
    (lambda: rm.RMSprop(centered="yes"), "centered: expected"),
    (lambda: rm.Adagrad(lr_decay=-1), f"lr_decay: {NOT_NEGATIVE}, got -1"),
    (
        lambda: rm.Adagrad(initial_accumulator_value=-1),
        f"initial_accumulator_value: {NOT_NEGATIVE}, got -1",
    ),
    (lambda: rm.Clip(rm.SGD()), "norm: expected one of norm= and value=, got 0 of them"),
    (
        lambda: rm.Clip(rm.SGD(), norm=1.0, value=1.0),
        "norm: expected one of norm= and value=, got 2 of them",
    ),
    (lambda: rm.Clip(rm.SGD(), norm=0.0), "norm: expected a finite number > 0, got 0.0"),
    (lambda: rm.Clip(rm.SGD(), value=-1), "value: expected a finite number > 0, got -1"),
    (lambda: rm.Clip("sgd", norm=1.0), "rule: expected an update rule, such as rm.SGD(), got"),
    (
        lambda: rm.Clip(rm.SGD(), value=1.0, per_tensor=True),
        "per_tensor: expected False beside value=, got True",
    ),
    (
        lambda: rm.MAML(0.1, rule="adam"),
        "rule: expected an update rule, such as rm.SGD(momentum=0.9), got 'adam'",
    ),
    (lambda: rm.MAML(0.1, rule=rm.SGD), "rule: expected an update rule, such as"),
    (lambda: rm.MAML(0.1, anchor=-1), f"anchor: {NOT_NEGATIVE}, got -1"),
    (lambda: rm.MAML(0.1, inner_batch=0), "inner_batch: expected an integer >= 1"),
    (
        lambda: rm.MAML(0.1, inner_batch=7).meta_gradient(NET, THETA, BATCH),
        "inner_batch: expected at most the 6 examples of a support set, got 7",
    ),
    (
        lambda: rm.MAML((0.1, 0.2), 3),
        "inner_lr: expected a number, or 3 of them, one for each inner step, got (0.1, 0.2)",
    ),
    (lambda: rm.MAML((0.1, -0.2), 2), "inner_lr[1]: expected a finite number > 0, got -0.2"),
    (
        lambda: rm.MetaSGD((0.1, 0.2), 2),
        "inner_lr: expected one number, the start of A in all steps, got (0.1, 0.2)",
    ),
    (lambda: rm.IMAML(1.0, 2, (0.1, 0.2)), "inner_lr: expected a finite number > 0, got (0.1"),
    (
        lambda: rm.IMAML(1.0, solver="newton_cg", rule=rm.SGD(0.9)),
        "rule: expected an update rule, and none beside solver='controlled_descent' or "
        "'newton_cg', got SGD(",
    ),
    (
        lambda: rm.IMAML(1.0, solver="controlled_descent", rule=rm.Adam()),
        "rule: expected an update rule, and none beside solver='controlled_descent' or "
        "'newton_cg', got Adam(",
    ),
    (
        lambda: rm.Reptile(0.1, optimizer="adam", rule=rm.SGD(0.9)),
        "rule: expected no rule and no anchor beside optimizer='adam', got SGD(",
    ),
    (
        lambda: rm.Reptile(0.1, optimizer="adam", anchor=0.1),
        "rule: expected no rule and no anchor beside optimizer='adam'",
    ),
]


@pytest.mark.parametrize("call,message", REFUSED, ids=[text[:50] for _, text in REFUSED])
def test_a_bad_argument_is_refused_in_one_line(call, message):
    with pytest.raises(rm.ArgumentError) as caught:
        call()
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=method_checks.rule_text)
def test_a_copy_and_a_pickle_of_a_rule_are_equal_and_give_the_same_bits(rule):
    grads = []
    for twin in (rule, copy.copy(rule), copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):
        assert twin == rule and hash(twin) == hash(rule) and repr(twin) == repr(rule)
        method = pickle.loads(pickle.dumps(rm.MAML(0.05, 2, rule=twin)))
        assert method == rm.MAML(0.05, 2, rule=rule)
        grads.append(method.meta_gradient(NET, THETA, BATCH).grad.tobytes())
    assert len(set(grads)) == 1


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=method_checks.rule_text)
def test_the_text_of_a_rule_is_the_call_that_makes_it(rule):
    names = {name: getattr(rm, name) for name in update_rules.__all__}
    for text in (repr(rule), method_checks.rule_text(rule)):
        assert eval(text, names) == rule
    assert text in method_checks.describe(rm.MAML(0.1, rule=rule)) or rule.plain


def test_rules_with_other_numbers_or_of_another_class_differ():
    assert len(set(rule_checks.RULES)) == len(rule_checks.RULES)
    assert rm.SGD() != rm.UpdateRule() and rm.Adam(weight_decay=0.01) != rm.AdamW()
    assert rm.MAML(0.1, rule=rm.SGD(0.9)) != rm.MAML(0.1, rule=rm.SGD(0.8))


def test_a_rule_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        rm.SGD().momentum = 0.9


def test_numpy_s_numbers_count_as_python_s():
    rule = rm.Adam(np.array([0.8, 0.9]).tolist(), np.float64(0.01), weight_decay=np.float32(0.5))
    assert rule == rm.Adam((0.8, 0.9), 0.01, weight_decay=0.5)


def test_sgd_without_momentum_and_decay_is_plain_gradient_descent_to_the_bit():
    plain = rm.MAML(0.05, 3).meta_gradient(NET, THETA, BATCH)
    for rule in (rm.SGD(), rm.SGD(dampening=0.5), rm.Clip(norm=1e6), rm.Clip(value=1e6)):
        out = rm.MAML(0.05, 3, rule=rule).meta_gradient(NET, THETA, BATCH)
        assert out.grad.tobytes() == plain.grad.tobytes(), rule
