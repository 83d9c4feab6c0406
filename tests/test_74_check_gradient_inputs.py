"""rm.check_gradient: what a function may take and return; reports; errors."""

import json
import xml.etree.ElementTree as ET
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from tanh_net import PARAMS, X, Y, check, tanh_net

import refmaml as rm
from refmaml.checks import trees

# ---- containers ----------------------------------------------------------------------

Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "params",
    [
        np.arange(1.0, 4.0),
        [np.ones(2), np.array(3.0)],
        (2.0, 1.5),
        Pair(np.ones(2), 0.5),
        OrderedDict(w=np.ones((2, 2)), deep={"b": [np.ones(1), None]}),
        {"w": np.ones(3, np.float32)},
        1.5,
    ],
)
def test_any_container_of_numbers(params):
    def cube(tree):
        square = trees.mapped(tree, lambda _, a: 3 * a**2)
        return square, sum(np.sum(np.asarray(a) ** 3) for a in filled(tree))

    assert rm.check_gradient(cube, params).ok
    wrong = rm.check_gradient(lambda t: (trees.mapped(cube(t)[0], lambda _, a: 2 * a), cube(t)[1]),
                              params)  # fmt: skip
    assert wrong.verdict == "wrong"


def filled(tree):
    return [a for a in trees.leaves_of(tree).values() if a is not None]


def test_the_function_gets_fresh_copies_and_may_write_into_them():
    params = {"w": np.ones(3)}

    def fn(p):
        g, loss = 2 * p["w"].copy(), (p["w"] ** 2).sum()
        p["w"] -= 0.1 * g
        return {"w": g}, loss

    assert rm.check_gradient(fn, params).ok and (params["w"] == 1).all()


@pytest.mark.parametrize(
    "form",
    [
        lambda g, loss: (loss, {"w": g}),
        lambda g, loss: {"grad": {"w": g}, "loss": loss},
        lambda g, loss: ({"w": g}, np.array([loss])),
        lambda g, loss: (g, loss),
        lambda g, loss: ({"w": g, "more": None}, loss),
    ],
    ids=["value_and_grad", "dict", "loss (1,)", "flat", "further names"],
)
def test_what_the_function_may_return(form):
    assert rm.check_gradient(lambda p: form(2 * p["w"], (p["w"] ** 2).sum()), {"w": np.ones(3)}).ok


# ---- reports and errors --------------------------------------------------------------


def test_a_report_as_json_markdown_and_junit():
    report = check(lambda g: {n: -a for n, a in g.items()}, seed=3)
    record = json.loads(report.to_json())
    assert record["schema"] == 1 and record["check"] == "gradient" and not record["ok"]
    assert record["about"]["seed"] == 3 and record["rows"][0]["verdict"] == "wrong"
    assert report.to_markdown().startswith("### ❌ WRONG: ") and "| direction 1 |" in (
        report.to_markdown()
    )
    suite = ET.fromstring(report.to_junit())
    assert suite.get("name") == "refmaml check gradient" and int(suite.get("failures")) >= 2
    assert str(report).startswith("WRONG: ")


def test_the_same_seed_gives_the_same_report():
    assert str(check(lambda g: None, seed=5)) == str(check(lambda g: None, seed=5))


RIGHT = {"fn": tanh_net, "params": PARAMS, "batch": (X, Y)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fn": 3}, "fn: expected a function fn(params, batch) or fn(params), got int"),
        ({"fn": lambda: 0}, "fn: expected a function fn(params, batch) or fn(params), got one of"),
        ({"params": {}}, "params: expected at least one number, got dict of 0"),
        ({"params": {"w": np.arange(3)}}, "params['w']: expected floating-point numbers, got int"),
        ({"params": {"w": "x"}}, "params['w']: expected an array, got str"),
        ({"params": {"w": np.array([np.nan])}}, "params: expected finite numbers"),
        ({"fn": lambda p, b: None}, "fn: expected (gradient, loss), got NoneType"),
        ({"fn": lambda p, b: (p, p)}, "loss: expected a number, got dict of 3"),
        ({"fn": lambda p, b: (p, np.ones(2))}, "loss: expected one real number, got an array"),
        ({"fn": lambda p, b: (p, np.nan)}, "loss: expected a finite number, got nan"),
        (
            {"fn": lambda p, b: ({"in.weight": 0}, 1.0)},
            "gradient: expected the structure of params",
        ),
        (
            {"fn": lambda p, b: ({**p, "in.bias": np.ones(3)}, 1.0)},
            "gradient['in.bias']: expected shape (8,), got shape (3,)",
        ),
        (
            {"fn": lambda p, b: ({**p, "in.bias": p["in.bias"] * np.nan}, 1.0)},
            "gradient['in.bias']: expected finite numbers, got 8",
        ),
        ({"fn": lambda p, b: 1 / 0}, "fn: expected a gradient and a loss, got ZeroDivisionError"),
        ({"tol": 2}, "tol: expected a number between 0 and 1, got 2"),
        ({"directions": 0}, "directions: expected an integer >= 1, got 0"),
        ({"precision": "half"}, "precision: expected float64 or float32, got 'half'"),
        ({"seed": -1}, "seed: expected an integer >= 0, got -1"),
    ],
)
def test_wrong_arguments_are_one_line(changed, words):
    with pytest.raises(rm.ArgumentError) as error:
        rm.check_gradient(**(RIGHT | changed))
    assert words in str(error.value) and "\n" not in str(error.value)
