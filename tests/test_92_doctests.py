"""The examples in docstrings print what they say."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WITH_EXAMPLES = sorted(
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for path in (ROOT / "refmaml").rglob("*.py")
    if re.search(r"^\s+>>> ", path.read_text(), re.M)
)


def examples(name):
    """The doctests of a module that have at least one line of code."""
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_print_what_they_say(name):
    tests = examples(name)
    assert tests
    for test in tests:
        lines = []
        failed, _ = doctest.DocTestRunner().run(test, out=lines.append)
        assert failed == 0, "".join(lines)


def test_maml_the_hessian_and_conjugate_gradients_have_an_example():
    named = {test.name.rpartition(".")[2] for name in WITH_EXAMPLES for test in examples(name)}
    assert {"MAML", "hessian", "conjugate_gradients"} <= named
