"""Faults of other libraries: each script of docs/findings runs, and prints its page."""

import math
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "findings"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README")
SCRIPT = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|nan)(?![\w.])")
MODULES = {"betty-ml": "betty", "jaxlib": "jax"}
ROUNDING = 1e-11  # every fault is larger, every rounding error in float64 smaller
# Which windows lose their gradient depends on the instructions of the processor.
ANY_SIZE = {"jax_fused_maximum"}


def versions_of(page):
    """{distribution: version} that the page names as wrong."""
    row = re.search(r"^\| library \| (.*?) \|$", (FOLDER / f"{page}.md").read_text(), re.MULTILINE)
    return dict(re.findall(r"([a-z-]+) (\d[\d.]*)", row[1]))


def scripts_of(page):
    """[(code, printed text)] of a page."""
    return SCRIPT.findall((FOLDER / f"{page}.md").read_text())


def modules_of(code):
    """What a script needs, as the mark frameworks takes it."""
    found = re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
    extra = ["optax"] if "optax" in code else []
    return sorted({"jax", "torch", "torchopt", "higher", "betty"} & {*found}) + extra


def same(found, committed, any_size=False):
    """Whether a number of a script is the page's.

    Rounding errors are all alike. Other numbers are printed with two digits or more:
    5 % allows for one unit of the second.
    """
    if math.isnan(committed) or abs(committed) < ROUNDING:
        return math.isnan(found) == math.isnan(committed) and not abs(found) >= ROUNDING
    if any_size:
        return abs(found) > 1e-6
    return math.isclose(found, committed, rel_tol=0.05)


def differences(page, printed, committed):
    """The lines that are not the page's: [] if all are."""
    lines = list(zip(printed.splitlines(), committed.splitlines(), strict=True))
    return [
        f"printed {new!r}, the page has {old!r}"
        for new, old in lines
        if NUMBER.sub("#", new) != NUMBER.sub("#", old)
        or not all(
            same(float(a), float(b), page in ANY_SIZE)
            for a, b in zip(NUMBER.findall(new), NUMBER.findall(old), strict=True)
        )
    ]


def run(code, folder):
    """What a script prints."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


CASES = [
    pytest.param(
        page, code, text, marks=pytest.mark.frameworks(*modules_of(code)), id=f"{page}-{i}"
    )
    for page in PAGES
    for i, (code, text) in enumerate(scripts_of(page))
]


@pytest.mark.parametrize("page, code, committed", CASES)
def test_a_script_prints_what_its_page_says(page, code, committed, tmp_path):
    """Another version that prints something else is named: the page must say so."""
    found = differences(page, run(code, tmp_path), committed)
    other = {
        name: metadata.version(name)
        for name, version in versions_of(page).items()
        if MODULES.get(name, name) in modules_of(code)
        and metadata.version(name).partition("+")[0] != version
    }
    note = f"docs/findings/{page}.md is about other versions; installed: {other}. Repaired? "
    assert not found, (note if other else "") + "; ".join(found)


def test_every_page_has_a_script_versions_and_a_row_of_the_index():
    index = (FOLDER / "README.md").read_text()
    for page in PAGES:
        text = (FOLDER / f"{page}.md").read_text()
        assert scripts_of(page) and versions_of(page), page
        assert text.count("```python") == len(scripts_of(page)), page
        (row,) = (line for line in index.splitlines() if f"]({page}.md)" in line)
        assert all(f"{n} {v}" in row for n, v in versions_of(page).items()), row
        assert all(f"**{word}.**" in text for word in ("Cause", "Fix", "Reports")), page
    assert len(re.findall(r"\]\(\w+\.md\)", index)) == len(PAGES)


@pytest.mark.parametrize(
    "printed, right",
    [
        ("solve: 0.0e+00 5.0e-01 at 0.26", True),
        ("solve: 3.1e-16 4.9e-01 at 0.26", True),
        ("solve: 3.1e-16 1.2e-16 at 0.26", False),  # repaired
        ("solve: 3.1e-05 5.0e-01 at 0.26", False),  # wrong in a new place
        ("solve: 3.1e-16 5.0e-01 at 0.29", False),
        ("slogdet: 0.0e+00 5.0e-01 at 0.26", False),
    ],
)
def test_another_output_is_found(printed, right):
    assert (not differences("a page", printed, "solve: 2.0e-16 5.0e-01 at 0.26")) == right


def test_a_gradient_that_is_no_longer_nan_is_found():
    assert differences("a page", "gradient [1.0, 1.0]", "gradient [1.0, nan]")
    assert not differences("a page", "gradient [1.0, nan]", "gradient [1.0, nan]")
