"""The doctor on a loss of the user's own in NumPy, and what it refuses in one line."""

from collections import OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest

import refmaml as rm
from refmaml.doctor.own_loss.trees import tree_of

METHOD = rm.MAML(0.3, 2)


def forward(params, x):
    x = x[:, :, None] * params["conv"]["kernel"]  # a convolution of width 3 with one input
    x = np.tanh(x[:, :-2, 0] + x[:, 1:-1, 1] + x[:, 2:, 2] + params["conv"]["bias"])
    return x @ params["head"]["w"] + params["head"]["b"]


def loss(params, x, y):
    return ((forward(params, x) - y) ** 2).mean()


def gradient(params, x, y):
    """The gradient of `loss`, in its structure."""
    kernel, w = params["conv"]["kernel"], params["head"]["w"]
    s = x[:, :-2] * kernel[0] + x[:, 1:-1] * kernel[1] + x[:, 2:] * kernel[2]
    h = np.tanh(s + params["conv"]["bias"])
    dz = 2 * (h @ w + params["head"]["b"] - y) / y.size
    ds = (dz @ w.T) * (1 - h * h)
    parts = x[:, :-2], x[:, 1:-1], x[:, 2:]
    return {
        "conv": {
            "kernel": np.array([(ds * p).sum() for p in parts]),
            "bias": ds.sum(keepdims=True)[0],
        },
        "head": {"w": h.T @ dz, "b": dz.sum(0)},
    }


def real_gradient(params, x, y):
    """The same, of real numbers only."""
    if np.iscomplexobj(params["head"]["b"]):
        raise TypeError("real numbers only")
    return gradient(params, x, y)


def example():
    rng = np.random.default_rng(0)
    params = {
        "conv": {"kernel": rng.standard_normal(3), "bias": rng.standard_normal(1)},
        "head": {"w": rng.standard_normal((4, 2)), "b": rng.standard_normal(2)},
    }
    return params, tuple(
        rng.standard_normal((3, n, d)) for n, d in ((5, 6), (5, 2), (7, 6), (7, 2))
    )


def tree(function, *values):
    if isinstance(values[0], dict):
        return {key: tree(function, *(v[key] for v in values)) for key in values[0]}
    return function(*values)


def maml(params, batch, curvature=1.0):
    """MAML by hand; the products are a complex step of the gradient."""
    total = None
    for xs, ys, xq, yq in zip(*batch, strict=True):
        phis = [params]
        for _ in range(2):
            phis.append(tree(lambda p, g: p - 0.3 * g, phis[-1], gradient(phis[-1], xs, ys)))
        lam = gradient(phis[-1], xq, yq)
        for phi in phis[-2::-1]:
            moved = tree(lambda p, v: p + 1e-30j * v, phi, lam)
            product = tree(lambda a: a.imag / 1e-30, gradient(moved, xs, ys))
            lam = tree(lambda v, h, p: (v - 0.3 * curvature * h).astype(p.dtype), lam, product, phi)
        total = lam if total is None else tree(np.add, total, lam)
    return tree(lambda a: a / len(batch[0]), total)


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
