"""The doctor on LLAMA: right functions, and mistakes of its Laplace term by name."""

import numpy as np
import pytest
from llama_implementations import by_autograd, by_hand, clamped, of_diagonal, without_tau

import refmaml as rm
from refmaml.doctor.builtin_cases import builtin_case
from refmaml.doctor.dictionary import dictionary
from refmaml.doctor.unrolled_variants import right_loop, task_rows
from refmaml.oracles.tolerance import relative_error

METHOD = rm.LLAMA(0.1, 3, curvature="hessian")
PROBES = ("two-layer", "mlp")


def judged(fn, framework, **options):
    return rm.check_meta_gradient(
        fn, METHOD, framework=framework, precision="float64", repeats=0, **options
    )


NUMPY = {
    "has no gradient": {"factor": 0.0},
    "not carried back through the inner loop": {"direct": True},
    "takes the curvature at theta": {"at_theta": True},
    "that of the query loss": {"query": True},
    "has the wrong sign": {"factor": -1.0},
    "counts half": {"factor": 0.5},
    "counts twice": {"factor": 2.0},
    "the diagonal of the Hessian alone": {"diagonal": True},
    "no tau": {"tau": 0.0},
}


@pytest.mark.parametrize("method", [METHOD, rm.LLAMA(0.1, 3)], ids=lambda m: m.curvature)
@pytest.mark.parametrize(
    "name", ["quadratic", "two-layer", "mlp", pytest.param("conv", marks=pytest.mark.slow)]
)
def test_its_right_candidate_is_the_method_on_every_case(name, method):
    case = builtin_case(name, method)
    assert relative_error(task_rows(case, right_loop(case.method)), case.rows) < 1e-12


@pytest.mark.slow
def test_a_right_function_in_numpy_is_right():
    assert judged(by_hand(), "numpy").verdict == "right"


@pytest.mark.slow
@pytest.mark.parametrize("words", NUMPY)
def test_a_mistake_in_numpy_is_named(words):
    probes = ("two-layer",) if words == "no tau" else PROBES
    report = judged(by_hand(**NUMPY[words]), "numpy", probes=probes)
    assert report.verdict == "wrong" and words in report.diagnosis, str(report)
    assert report.fix


TORCH = {
    "has no gradient": {"stop": True},
    "determinant is clamped": {"log_det": clamped},
    "takes the curvature at theta": {"at_theta": True},
    "the diagonal of the Hessian alone": {"log_det": of_diagonal},
    "counts half": {"eta": lambda method: method.weight / 2},
    "no tau": {"log_det": without_tau},
}


@pytest.mark.slow
@pytest.mark.frameworks("torch")
def test_a_right_function_in_torch_is_right():
    assert judged(by_autograd(), "torch", probes=PROBES).verdict == "right"


@pytest.mark.slow
@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("words", TORCH)
def test_a_mistake_in_torch_is_named(words):
    report = judged(by_autograd(**TORCH[words]), "torch", probes=("two-layer",))
    assert report.verdict == "wrong" and words in report.diagnosis, str(report)


def test_mistakes_of_kronecker_factors_have_entries_of_their_own():
    names = [m.name for m in dictionary(rm.LLAMA(0.1, 3)) if "Kronecker" in m.name]
    assert len(names) == 3
    case = builtin_case("mlp", rm.LLAMA(0.1, 3))
    rows = {
        value: task_rows(case, right_loop(case.method).__class__(3, laplace=value))
        for value in ("squared tau", "inputs alone", "adjoints alone")
    }
    for value, row in rows.items():
        assert relative_error(row, case.rows) > 1e-6, value
    both = rows["inputs alone"] + rows["adjoints alone"]
    none = task_rows(case, right_loop(case.method).__class__(3, laplace="none"))
    assert np.allclose(both - none, case.rows, rtol=1e-10, atol=1e-12)
