"""docs/add_a_method.md works: a new method is one file and one entry in the table."""

import json

import pytest
from follow_document import copy_sources, follow, printed_json, python

import refmaml as rm
from refmaml.methods import table

pytestmark = pytest.mark.slow

DOCUMENT = "docs/add_a_method.md"

LADDER = """
import json
from refmaml import kernels
from refmaml.methods import table
from refmaml.oracles import cases

entry = table.BY_NAME["scalar-rate"]
only = [method for method, _ in cases.methods(inner_steps=2) if type(method) is entry.cls]
cases.methods = lambda: [(method, False) for method in only]
from refmaml.oracles import ladder
ladder.planted = lambda *arguments: []
rows = list(ladder.methods(kernels.reference()))
print(json.dumps([[c.subject, c.oracle, c.passed] for c in rows]))
"""

PUBLIC = """
import json
import refmaml as rm
from refmaml import methods
from refmaml.methods import table

cls = table.BY_NAME["scalar-rate"].cls
print(json.dumps([rm.ScalarRate is cls, methods.ScalarRate is cls, rm.__all__]))
"""

TRAIN = [
    *("-m", "refmaml", "train", "--method", "scalar-rate", "--data", "sinusoid"),
    *("--steps", "3", "--tasks", "3", "--hidden", "4", "--eval-tasks", "5"),
    *("--kernels", "reference", "--quiet", "--out", "run"),
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the sources with the document's method."""
    folder = copy_sources(tmp_path_factory.mktemp("with_scalar_rate"))
    assert follow(DOCUMENT, folder, end_of_list=")") == [
        "refmaml/methods/scalar_rate.py",
        "refmaml/methods/table.py",
    ]
    return folder


def test_the_new_method_is_a_public_name(sources):
    in_refmaml, in_methods, names = printed_json(sources, PUBLIC)
    assert in_refmaml and in_methods
    last = table.TABLE[-1].cls.__name__
    assert names[names.index(last) + 1] == "ScalarRate"
    assert [name for name in names if name != "ScalarRate"] == rm.__all__


def test_the_new_method_passes_the_complex_step(sources):
    assert printed_json(sources, LADDER) == [
        ["ScalarRate, K = 2", "complex step", True],
        ["ScalarRate, K = 2, frozen BatchNorm2d", "complex step", True],
    ]


@pytest.mark.slow
def test_an_error_in_the_new_method_is_found(sources):
    path = sources / "refmaml/methods/scalar_rate.py"
    right = path.read_text()
    try:
        path.write_text(right.replace("sum(back.rates)", "back.rates[-1]"))
        assert not any(passed for *_, passed in printed_json(sources, LADDER))
    finally:
        path.write_text(right)


@pytest.mark.slow
def test_the_new_method_trains_on_the_command_line(sources):
    done = python(sources, *TRAIN)
    assert done.returncode == 0, done.stderr
    config = json.loads((sources / "run" / "config.json").read_text())
    assert config["method"] == "scalar-rate" and config["loss_scale"] == "mean"
    assert (sources / "run" / "result.json").exists()
