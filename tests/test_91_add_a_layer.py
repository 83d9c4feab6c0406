"""docs/add_a_layer.md works: a new layer is one file and a name in the public list."""

import pytest
from follow_document import copy_sources, follow, printed_json

pytestmark = pytest.mark.slow

DOCUMENT = "docs/add_a_layer.md"

ON_THE_REFERENCE = """
import json
from refmaml import kernels
from refmaml.oracles import ladder

rows = [c for c in ladder.layers(kernels.reference()) if c.subject == "Mish()"]
print(json.dumps([[c.quantity, c.oracle, c.passed] for c in rows]))
"""

ON_THE_CPU_KERNELS = """
import json
import numpy as np
import refmaml as rm
from refmaml.oracles import cases, kernel_checks, meta_objectives

cpu, reference = rm.kernels.cpu(), rm.kernels.reference()
rows = [
    check
    for case in cases.LAYERS
    if type(case.layer) is rm.Mish
    for dtype in (np.float32, np.float64)
    for check in kernel_checks.layer_kernel_checks(case, cpu, reference, dtype)
]
net = rm.Sequential([rm.Linear(3, 4), rm.Mish(), rm.Linear(4, 2)], rm.MSE(), (3,))
method = rm.MAML(0.1, 2)
theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
rows.append(kernel_checks.method_kernel_check(method, net, theta, batch, cpu, np.float64))
as_one_kernel = net.with_kernels(cpu).whole_net((3,), np.dtype(float)) is not None
print(json.dumps([as_one_kernel, [[c.quantity, c.passed] for c in rows]]))
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the sources with the document's layer."""
    folder = copy_sources(tmp_path_factory.mktemp("with_mish"))
    assert follow(DOCUMENT, folder, end_of_list="]") == [
        "refmaml/layers/mish.py",
        "refmaml/layers/__init__.py",
    ]
    return folder


def test_the_new_layer_passes_the_complex_step_in_all_four_passes(sources):
    rows = printed_json(sources, ON_THE_REFERENCE)
    quantities = [(quantity, oracle) for quantity, oracle, _ in rows]
    assert quantities == 2 * [
        ("y", "task by task"),
        ("dx", "complex step"),
        ("ry", "complex step"),
        ("rdx", "complex step"),
    ]
    assert all(passed for *_, passed in rows)


def test_an_error_in_the_new_layer_is_found(sources):
    path = sources / "refmaml/layers/mish.py"
    right = path.read_text()
    try:
        path.write_text(right.replace("2 * dt + x * ddt", "2 * dt - x * ddt"))
        rows = printed_json(sources, ON_THE_REFERENCE)
    finally:
        path.write_text(right)
    assert {quantity for quantity, _, passed in rows if not passed} == {"rdx"}


@pytest.mark.slow
def test_the_new_layer_runs_on_the_cpu_kernels_layer_by_layer(sources):
    as_one_kernel, rows = printed_json(sources, ON_THE_CPU_KERNELS)
    assert not as_one_kernel
    assert len(rows) == 2 * 2 * 4 + 1 and all(passed for _, passed in rows)
