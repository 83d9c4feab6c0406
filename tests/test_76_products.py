"""Products of curvlinops, BackPACK and torch.func: their committed table."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORD = json.loads((ROOT / "benchmarks" / "conformance" / "products.json").read_text())
MODULES = {
    "curvlinops": ("torch", "curvlinops"),
    "BackPACK": ("torch", "backpack"),
    "torch.func, jvp of grad": ("torch",),
    "torch.func, vjp of grad": ("torch",),
}
RIGHT = 1e-13  # sums of a few hundred terms in float64
CELLS = [
    pytest.param(
        library,
        row["kind"],
        row["net"],
        error,
        marks=pytest.mark.frameworks(*MODULES[library]),
        id=f"{library}, {row['kind']}, {row['net']}",
    )
    for row in RECORD["rows"]
    for library, error in row["errors"].items()
]


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks" / "conformance")


@pytest.mark.filterwarnings("ignore")  # deprecations inside curvlinops and BackPACK
@pytest.mark.parametrize("library, kind, net, committed", CELLS)
def test_a_cell_of_the_table_is_measured_again(library, kind, net, committed):
    from products import cell_of

    found = cell_of(library, kind, net)
    if isinstance(committed, str):
        assert found == committed
    elif committed < RIGHT:
        assert found < RIGHT
    else:  # the size of a fault, which rounding moves by far less than this
        assert found == pytest.approx(committed, rel=1e-9)


def test_docs_results_has_every_line_of_the_table():
    from products import lines

    page = (ROOT / "docs" / "results.md").read_text()
    for line in lines(RECORD):
        assert f"\n{line}\n" in page, line


def test_the_one_wrong_cell_is_the_one_that_docs_results_explains():
    wrong = [
        (row["net"], row["kind"], library)
        for row in RECORD["rows"]
        for library, error in row["errors"].items()
        if isinstance(error, float) and error > RIGHT
    ]
    assert wrong == [("conv, batch-norm", "hessian", "curvlinops")]
