"""Functions that return no gradient: each gets one clear line."""

import re

import numpy as np
import pytest
from implementations import MAML, maml

import refmaml as rm


def complaint(fn, method=MAML, **options):
    """The one line of the ArgumentError that a check ends in."""
    with pytest.raises(rm.ArgumentError) as caught:
        rm.check_meta_gradient(
            fn, method, probes=options.pop("probes", ("mlp",)), repeats=0, **options
        )
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400, line
    return line


def raising(problem, params, batch):
    return {}["nothing here"]


def broken(change):
    def function(problem, params, batch):
        return change(maml(problem, params, batch))

    return function


def with_(**changes):
    return broken(
        lambda out: {
            n.replace("_", "."): a
            for n, a in {**{n.replace(".", "_"): a for n, a in out.items()}, **changes}.items()
        }
    )


CASES = {
    "raises": (raising, "KeyError: 'nothing here'"),
    "where it raises": (raising, "test_74_doctor_bad_functions.py:"),
    "None": (lambda *a: None, "is there a return statement?"),
    "a list": (broken(lambda out: list(out.values())), "got list of 4"),
    "a number": (lambda *a: 1.0, "got float"),
    "text": (lambda *a: "gradient", "got str"),
    "an unknown name": (
        broken(lambda out: {**out, "7.weight": out["0.weight"]}),
        "an unknown name '7.weight'",
    ),
    "a missing name": (
        broken(lambda out: {n: a for n, a in out.items() if n != "0.bias"}),
        "nothing for '0.bias'",
    ),
    "a wrong shape": (
        broken(lambda out: {**out, "0.bias": out["0.bias"][1:]}),
        "gradient['0.bias']: expected shape (13,), got (12,)",
    ),
    "a transposed matrix": (
        broken(lambda out: {**out, "0.weight": out["0.weight"].T}),
        "its axes swapped?",
    ),
    "a short vector": (broken(lambda out: np.zeros(3)), "flat vector"),
    "NaN": (
        with_(**{"0_bias": np.full(13, np.nan)}),
        "gradient['0.bias']: expected finite numbers, got 13",
    ),
    "infinity": (
        with_(**{"2_weight": np.full((7, 13), np.inf)}),
        "gradient['2.weight']: expected finite numbers",
    ),
    "integers": (with_(**{"0_bias": np.zeros(13, int)}), "float64 or float32 numbers, got int64"),
    "half precision": (with_(**{"0_bias": np.zeros(13, np.float16)}), "too few digits"),
    "objects": (with_(**{"0_bias": np.zeros(13, object)}), "got object"),
    "complex numbers": (with_(**{"0_bias": np.zeros(13, complex)}), "got complex128"),
    "lists for arrays": (
        broken(lambda out: {n: a.tolist() for n, a in out.items()}),
        "expected an array, got list",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_without_a_gradient_gets_one_line(name):
    fn, words = CASES[name]
    assert words in complaint(fn)


def writing(problem, params, batch):
    params["0.weight"] += 1
    return maml(problem, params, batch)


def centring(problem, params, batch):
    batch.x_support[...] -= batch.x_support.mean()
    return maml(problem, params, batch)


@pytest.mark.parametrize(
    ("fn", "name"), [(writing, "params['0.weight']"), (centring, "batch.x_support")]
)
def test_an_input_that_the_function_writes_into_is_named(fn, name):
    assert f"{name}: expected inputs that are left as they are" in complaint(fn)


def test_adding_entries_to_the_dict_of_parameters_is_no_write():
    def function(problem, params, batch):
        out = maml(problem, dict(params), batch)
        params["mine"] = np.zeros(1)
        return out

    assert rm.check_meta_gradient(function, MAML, probes=("mlp",), repeats=0)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda: 0, "one of 0 arguments"),
        (lambda a: 0, "one of 1 arguments"),
        (lambda a, b, c, d: 0, "one of 4 arguments"),
        (3, "expected a function"),
    ],
)
def test_a_function_of_other_arguments_is_refused(fn, words):
    assert words in complaint(fn)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "maml"}, "method: expected a method of refmaml"),
        ({"framework": "tensorflow"}, "framework: expected one of"),
        ({"probes": ("cubic",)}, "probes: expected some of"),
        ({"precision": "float16"}, "precision: expected"),
        ({"layout": {"0.weight": "HW"}}, "layout['0.weight']: expected a permutation"),
        ({"layout": "NHWC"}, "layout: expected a dict"),
        ({"probes": ()}, "at least one"),
    ],
)
def test_arguments_without_a_meaning_are_refused(options, words):
    assert words in complaint(maml, **{"method": MAML, **options})


def test_a_two_argument_function_needs_its_net():
    assert "net: expected the net that a function of (params, batch) implements" in complaint(
        lambda params, batch: params
    )


def test_a_method_that_fits_no_case_is_refused():
    assert "adapts" in complaint(maml, rm.MAML(0.1, 2, adapts=("17.weight",)))


def test_a_framework_that_is_not_installed_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    assert "framework: expected torch to be installed" in complaint(maml, framework="torch")


def test_the_extras_that_install_cupy_are_named(monkeypatch):
    """There is no extra called cupy."""
    import sys
    import tomllib
    from pathlib import Path

    monkeypatch.setitem(sys.modules, "cupy", None)
    line = complaint(maml, framework="cupy")
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    named = re.findall(r"refmaml\[(\w+)\]", line)
    assert named == ["cuda12", "cuda13"]
    assert set(named) <= set(project["project"]["optional-dependencies"])


# ---- tensors -------------------------------------------------------------------------


def torch_broken(change):
    def function(problem, params, batch):
        from torch_implementations import torch_maml

        return change(torch_maml(problem, params, batch))

    return function


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda out: {n: g.requires_grad_() for n, g in out.items()}, "still requires grad"),
        (
            lambda out: {n: g.bfloat16() for n, g in out.items()},
            "got bfloat16, which holds too few digits",
        ),
        (lambda out: {n: g.half() for n, g in out.items()}, "got float16"),
        (
            lambda out: {n: g.to_sparse() for n, g in out.items()},
            "expected an array that can be read, got Tensor",
        ),
        (lambda out: {n: g * float("nan") for n, g in out.items()}, "expected finite numbers"),
        (lambda out: sum(g.sum() for g in out.values()), "flat vector"),
    ],
)
def test_tensors_that_cannot_be_judged_get_one_line(change, words):
    assert words in complaint(torch_broken(change), framework="torch", probes=("quadratic",))


@pytest.mark.frameworks("torch")
def test_writing_into_a_tensor_is_an_error():

    def function(problem, params, batch):
        from torch_implementations import torch_maml

        out = torch_maml(problem, params, batch)
        params["0.weight"].sub_(0.1 * out["0.weight"])
        return out

    assert "params['0.weight']: expected inputs that are left as they are" in complaint(
        function, framework="torch", probes=("quadratic",)
    )


@pytest.mark.frameworks("jax")
def test_a_jax_gradient_in_bfloat16_gets_one_line():

    def function(problem, params, batch):
        return {n: p.astype("bfloat16") for n, p in params.items()}

    assert "got bfloat16" in complaint(function, framework="jax", probes=("quadratic",))


@pytest.mark.frameworks("torch")
def test_an_array_of_another_framework_is_read():
    import torch

    def function(problem, params, batch):
        return {n: torch.from_numpy(g) for n, g in maml(problem, params, batch).items()}

    assert rm.check_meta_gradient(function, MAML, probes=("mlp",), repeats=0)
