"""rm.check_rl_meta_gradient in PyTorch and JAX, and on formulas of other libraries."""

import pytest
from rl_verdicts import CASES, LIBRARIES, judged

import refmaml as rm

IN_FRAMEWORKS = [name for name in CASES if CASES[name][1]]


@pytest.mark.parametrize("name", IN_FRAMEWORKS)
@pytest.mark.frameworks("torch")
def test_verdicts_in_torch(name):
    judged(name, CASES[name][1].in_torch, "torch")


@pytest.mark.parametrize("name", IN_FRAMEWORKS)
@pytest.mark.frameworks("jax")
def test_verdicts_in_jax(name):
    judged(name, CASES[name][1].in_jax, "jax")


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.frameworks("torch")
def test_formulas_of_other_libraries(name):
    """Sums over steps are divided by all steps, and losses are minimised, as there."""
    way, options, mistakes, rest = LIBRARIES[name]
    options = {"over": "steps", "of": "loss", "framework": "torch", **options}
    report = rm.check_rl_meta_gradient(way.in_torch, **options)
    assert report.verdict == ("wrong" if mistakes else "right"), str(report)
    said = [report.diagnosis, *report.findings]
    assert len(said) == max(1, len(mistakes)), str(report)
    for text, mistake in zip(said, mistakes, strict=False):
        assert mistake in text
    if rest:
        assert any(rest in remark for remark in report.remarks)
