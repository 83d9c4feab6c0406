"""Each mistake of the dictionary, planted in NumPy, PyTorch and JAX, gets its name.

It gets no other name.
"""

import pytest
import torch_implementations
from implementations import IMAML, MAML
from jax_implementations import JAX
from torch_wrong_implementations import TORCH
from wrong_implementations_table import IMPLEMENTATIONS

import refmaml as rm
from refmaml.doctor.dictionary import dictionary

pytestmark = pytest.mark.slow


def examined(implementation, **options):
    return rm.check_meta_gradient(
        implementation.fn, implementation.method, probes=implementation.probes, repeats=0, **options
    )


def named(report, words):
    """The verdict is wrong, and the diagnosis is a name with these words."""
    assert report.verdict == "wrong" and not report.stages, str(report)
    assert words in report.diagnosis, str(report)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_mistake_planted_in_numpy_is_named_in_float64(name):
    report = examined(IMPLEMENTATIONS[name], precision="float64")
    named(report, IMPLEMENTATIONS[name].words)
    assert report.fix or "times" in report.diagnosis


@pytest.mark.parametrize("name", list(IMPLEMENTATIONS)[::2])
def test_a_mistake_planted_in_numpy_is_named_in_float32(name):
    named(examined(IMPLEMENTATIONS[name], precision="float32"), IMPLEMENTATIONS[name].words)


def test_at_least_forty_mistakes_in_at_least_thirty_rows_are_tried():
    assert (
        len(IMPLEMENTATIONS) >= 70
        and len(list(IMPLEMENTATIONS)[::2]) >= 35
        and len({implementation.row for implementation in IMPLEMENTATIONS.values()}) >= 30
    )


@pytest.fixture(scope="module")
def torch():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("name", TORCH)
def test_a_mistake_planted_in_torch_is_named(torch, name):
    report = examined(TORCH[name], framework="torch", precision="float64")
    named(report, TORCH[name].words)


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize(
    "name",
    ["create_graph forgotten", "losses_q[-1]", "backward inside", "evaluation mode", "torch's eps"],
)
def test_a_mistake_planted_in_torch_is_named_in_float32(torch, name):
    named(examined(TORCH[name], framework="torch", precision="float32"), TORCH[name].words)


@pytest.mark.frameworks("jax")
@pytest.mark.parametrize("name", JAX)
def test_a_mistake_planted_in_jax_is_named(name):
    implementation = JAX[name]._replace(probes=("quadratic",))
    named(examined(implementation, framework="jax", precision="float64"), implementation.words)


@pytest.mark.frameworks("torch")
def test_the_fix_is_for_the_user_s_framework(torch):
    report = examined(TORCH["create_graph forgotten"], framework="torch", precision="float64")
    assert "create_graph=True" in report.fix
    assert "H(phi_k)" in examined(IMPLEMENTATIONS["first-order"], precision="float64").fix


def test_mistakes_with_the_same_gradient_are_listed():
    """A gradient of 0 in iMAML has three possible reasons.

    With one inner step, a factor has one.
    """
    anchor = examined(IMPLEMENTATIONS["imaml anchor"], precision="float64")
    assert len(anchor.ties) == 2 and any("CG ran for no iteration" in tie for tie in anchor.ties)
    single = rm.check_meta_gradient(
        sum_over_tasks, rm.MAML(0.1, 1), probes=("quadratic",), precision="float64", repeats=0
    )
    assert "times B" in single.diagnosis


def sum_over_tasks(problem, params, batch):
    from implementations import maml, times

    return times(len(batch.x_support), maml(problem, params, batch))


def test_every_name_in_the_dictionary_differs_from_the_others():
    for method in (MAML, IMAML, rm.Reptile(0.1, 3), rm.ANIL(0.1, 3), rm.MetaSGD(0.1, 3), rm.ERM()):
        names = [m.name for m in dictionary(method)]
        assert len(set(names)) == len(names)


def test_the_implementations_share_no_code_with_the_doctor():
    for module in (
        "implementations.py",
        "wrong_implementations.py",
        "wrong_implementations_other.py",
        "wrong_implementations_stages.py",
        "wrong_implementations_table.py",
        "torch_implementations.py",
        "torch_wrong_implementations.py",
        "jax_implementations.py",
    ):
        with open(f"{torch_implementations.__file__.rpartition('/')[0]}/{module}") as file:
            assert "refmaml.doctor" not in file.read().split('"""', 2)[2]
