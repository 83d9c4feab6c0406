"""The doctor on a loss of the user's own in NumPy, and what it refuses in one line."""

from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest
from own_loss_numpy import LR, STEPS, VARIANTS, example, forward, gradient, loss, maml, tree

import refmaml as rm
from refmaml.doctor.own_loss.trees import tree_of

pytestmark = pytest.mark.slow

METHOD = rm.MAML(LR, STEPS)


def real_gradient(params, x, y):
    """The same, of real numbers only."""
    if np.iscomplexobj(params["head"]["b"]):
        raise TypeError("real numbers only")
    return gradient(params, x, y)


def check(fn=maml, method=METHOD, **options):
    params, batch = example()
    given = {"loss": loss, "params": params, "batch": batch, "repeats": 0, "precision": "float64"}
    return rm.check_meta_gradient(fn, method, **given | options)


@pytest.mark.parametrize("given", [gradient, real_gradient, None])
def test_a_loss_in_numpy_is_judged_with_its_gradient_or_by_the_complex_step(given):
    report = check(gradient=given)
    assert report.ok and report.results[0].worst.error < 1e-10 > report.results[0].worst.tolerance
    report = check(lambda p, b: maml(p, b, 0.0), gradient=given)
    assert report.diagnosis.startswith("first-order")
    report = check(lambda p, b: maml(p, b, 2.0), gradient=given)
    assert "Hessian counts twice" in report.diagnosis


@pytest.mark.parametrize("label", VARIANTS)
def test_mistakes_are_named_on_a_net_in_numpy(label):
    changes, words = VARIANTS[label]
    report = check(lambda p, b: maml(p, b, **changes), gradient=gradient)
    assert report.verdict == "wrong" and words in report.diagnosis


def test_both_precisions_and_repeated_calls_are_judged():
    report = check(gradient=gradient, precision=None, repeats=6)
    assert report.ok and len(report.results) == 2


def test_a_wrong_gradient_given_is_found_before_any_method():
    def wrong(params, x, y):
        return tree(lambda g: 1.01 * g, gradient(params, x, y))

    report = check(gradient=wrong)
    assert report.diagnosis.startswith("the first derivative of the loss is wrong: off by")


def test_a_forward_function_and_a_loss_of_outputs_make_a_loss():
    def of_outputs(z, y):
        return ((z - y) ** 2).mean()

    assert check(loss=of_outputs, forward=forward)


def swapped(batch):
    return batch[0], batch[1][:2], *batch[2:]


BAD = {
    "no loss": ({"loss": 3}, "loss: expected a function loss(params, x, y)"),
    "a loss of outputs": ({"loss": lambda z, y: 0.0}, "or loss(outputs, y) beside forward="),
    "a vector": ({"loss": lambda p, x, y: np.ones(3)}, "got shape (3,)"),
    "None": ({"loss": lambda p, x, y: None}, "None (is there a return statement?)"),
    "NaN": ({"loss": lambda p, x, y: loss(p, x, y) * np.nan, "gradient": gradient}, "a finite"),
    "an error": ({"loss": lambda p, x, y: p["absent"]}, "got KeyError: 'absent'"),
    "no complex step": (
        {"loss": lambda p, x, y: float(np.real(loss(p, x, y)))},
        "gradient: expected gradient=, a function",
    ),
    "no params": ({"params": None}, "params: expected the parameters of the loss, got None"),
    "no arrays": ({"params": {"a": 3}}, "params: expected a dict, a pytree or an nn.Module"),
    "integers": ({"params": {"a": np.ones(3, int)}}, "params: expected a dict, a pytree"),
    "not finite": ({"params": {"a": np.array([np.nan])}}, "params['a']: expected finite"),
    "no batch": ({"batch": None}, "batch: expected (x_support, y_support, x_query, y_query)"),
    "three sets": ({"batch": example()[1][:3]}, "batch: expected (x_support, y_support"),
    "tasks differ": ({"batch": swapped(example()[1])}, "batch.y_support: expected 3 tasks as in"),
    "four of four": ({"batch": [[1] * 4] * 4}, "a list of four lists of four, which may be"),
    "a net too": ({"net": rm.mlp((3, 2))}, "net: expected nothing beside loss="),
    "a layout": ({"layout": {"x": "NHWC"}}, "layout: expected nothing beside loss="),
    "a gradient alone": ({"loss": None, "gradient": gradient}, "loss: expected a function"),
    "cavia": ({"method": rm.CAVIA(0.1, 2)}, "method: expected a method without a context"),
    "mini-batches": ({"method": rm.MAML(0.1, 2, inner_batch=9)}, "inner_batch: expected at most"),
    "names of the gradient": (
        {"gradient": lambda p, x, y: {"conv": gradient(p, x, y)["conv"]}},
        "gradient: expected the names of params, got nothing for ['head.w']",
    ),
    "cupy": ({"framework": "cupy"}, "framework: expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_means_nothing_is_one_line(name):
    changes, words = BAD[name]
    with pytest.raises(rm.ArgumentError) as error:
        check(**changes)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_names_that_do_not_fit_the_params_are_one_line():
    with pytest.raises(rm.ArgumentError, match="got nothing for 'head.b'"):
        check(lambda p, b: {"conv": maml(p, b)["conv"], "head": {"w": maml(p, b)["head"]["w"]}})
    with pytest.raises(rm.ArgumentError, match=r"gradient\['head.w'\]: expected shape \(4, 2\)"):
        check(lambda p, b: {**maml(p, b), "head": {"w": np.ones(3), "b": np.ones(2)}})
    with pytest.raises(rm.ArgumentError, match="inputs that are left as they are"):
        check(lambda p, b: p["head"]["w"].fill(0) or maml(p, b))


def test_the_users_own_arrays_stay_as_they_are():
    params, batch = example()
    copies = tree(np.copy, params), [a.copy() for a in batch]
    check(params=params, batch=batch)
    assert all(np.array_equal(a, b) for a, b in zip(batch, copies[1], strict=True))
    assert tree(lambda a, b: np.array_equal(a, b), params, copies[0])["head"]["w"]


def test_containers_keep_their_class_and_named_tuples_their_names():
    Pair = namedtuple("Pair", "left right")
    value = {"a": defaultdict(list, b=1.0), "c": Pair(2.0, OrderedDict(d=3.0))}
    tree = tree_of(value)
    assert tree.names == ["a.b", "c.left", "c.right.d"]
    other = tree.rebuild([4.0, 5.0, 6.0])
    assert other == {"a": {"b": 4.0}, "c": Pair(5.0, OrderedDict(d=6.0))}
    assert other["a"].default_factory is list and type(other["c"]) is Pair
