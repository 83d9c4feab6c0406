"""The package as a whole: what importing it costs, where kernels may be imported from, and the README's example."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from refmaml.cli.omniglot.protocols import PUBLISHED, ROWS

ROOT = Path(__file__).parent.parent


def python(code, cwd=ROOT):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def test_importing_refmaml_loads_nothing_that_is_only_used_somewhere():
    out = python(
        "import sys, refmaml; print([m for m in ('scipy', 'matplotlib', 'tqdm', 'PIL', 'numba', 'argparse', 'torch', 'jax', "
        "'mpi4py', 'tensorboardX') if m in sys.modules])"
    )
    assert out.stdout.strip() == "[]", out.stdout + out.stderr


def test_kernels_are_not_importable_under_their_folder_s_name():
    out = python("import kernels")
    assert out.returncode == 1 and "import it as refmaml.kernels" in out.stderr


def test_every_module_of_the_package_imports_in_one_direction():
    """kernels <- layers <- network <- methods <- training <- cli; tasks stand beside; oracles import all but the last two,
    the doctor the oracles too."""
    low = {"batch", "boundary", "chunks", "errors", "finite"}
    allowed = {
        "layers": {"layers", "kernels", "errors"},
        "methods": {"methods", "kernels", *low},
        "storage": {"storage", "errors"},
        "tasks": {"tasks", "storage", "batch", "errors", "bars"},
        "training": {"training", "methods", "storage", "version", "tasks", "say", "signals", *low},
        "doctor": {
            "doctor",
            "oracles",
            "methods",
            "layers",
            "network",
            "tasks",
            "batch",
            "errors",
            "version",
        },
        "oracles": {
            "oracles",
            "methods",
            "layers",
            "network",
            "nets",
            "quadratic",
            "tasks",
            "kernels",
            *low,
        },
    }
    for package, names in allowed.items():
        for file in (ROOT / "refmaml" / package).glob("*.py"):
            used = set(re.findall(r"^\s*(?:from|import) refmaml\.(\w+)", file.read_text(), re.M))
            assert used <= names, f"{file.name} imports {used - names}"
    for file in (ROOT / "kernels").rglob("*.py"):
        used = set(re.findall(r"^\s*(?:from|import) refmaml(?:\.(\w+))?", file.read_text(), re.M))
        assert used <= {"kernels"}, f"{file} imports {used}"


def test_the_readme_s_example_prints_what_the_readme_says(capsys):
    readme = (ROOT / "README.md").read_text()
    code, printed = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", readme, re.S).groups()
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    "name", [p for p in re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text())]
)
def test_every_file_the_readme_links_to_exists(name):
    assert (ROOT / name).exists()


def committed(name):
    return json.loads((ROOT / "benchmarks" / name).read_text())


def test_the_readme_s_figures_are_those_of_the_committed_results():
    readme, rows = (ROOT / "README.md").read_text(), committed("verify.json")["rows"]
    assert all(row["passed"] for row in rows) and f"{len(rows)} checks" in readme
    right = [row for row in rows if row["rung"] != "4 planted error"]
    assert f"{max(row['error'] / row['tolerance'] for row in right):.0%} of the tolerance" in readme
    for phrase, chosen in (
        ("Passes of layers are within {} of", lambda row: row["rung"][0] in "123"),
        ("meta-gradients within {} of", lambda row: row["rung"] == "4 meta-gradient"),
        ("JAX in float64 within {}", lambda row: row["oracle"] in ("torch", "jax")),
    ):
        worst = max(row["error"] for row in rows if chosen(row))
        assert phrase.format(f"{worst:.0e}") in " ".join(readme.split())
    for result in committed("demo/demo.json")["results"].values():
        assert f"{100 * result['accuracy']:.1f} +- {100 * result['interval']:.1f} %" in readme
    assert f"{committed('ranks/ranks.json')['two_ranks_over_one']:.2f} times as fast" in readme


def percent(evaluation):
    return f"{100 * evaluation['accuracy']:.1f} +- {100 * evaluation['interval']:.1f}"


def cell(protocol, row):
    """What the README says of a cell of the Omniglot table."""
    path = ROOT / "benchmarks/omniglot" / protocol / "5w1s" / row / "result.json"
    result = json.loads(path.read_text()) if path.exists() else {"finished": False}
    if not result["finished"]:
        return "not run to its end"
    together, alone = (
        percent(result["evaluations"][way]) for way in ("transductive", "one at a time")
    )
    return f"**{together}** ({alone})"


@pytest.mark.parametrize("row", ROWS)
def test_the_readme_s_omniglot_table_is_that_of_the_committed_results(row):
    published = PUBLISHED[row]["5w1s"]
    line = f"| {ROWS[row]} | {cell('as-published', row)} | {published.accuracy} +- {published.interval} | {cell('equal', row)} |"
    assert line in (ROOT / "README.md").read_text(), line


def test_what_the_readme_says_of_two_hours_is_committed():
    readme, result = (ROOT / "README.md").read_text(), committed("omniglot/at-two-hours.json")
    assert f"{percent(result)} % (step {result['steps']:,})" in readme


def test_the_readme_s_times_are_those_of_the_committed_bench():
    readme, record = (ROOT / "README.md").read_text(), committed("bench/bench.json")

    def ms(seconds):
        return f"{1e3 * seconds:,.0f} ms" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"

    for part in record["meta"]:
        by_name = {r["name"]: r for r in part["results"]}
        peer = min(part["times_as_fast_as"], key=part["times_as_fast_as"].get)
        ours, best = (by_name[name]["seconds"]["median"] for name in ("refmaml", peer))
        row = (
            f"| {part['title']}, {part['tasks']} tasks | {ms(ours)} | {by_name[peer]['title']}: {ms(best)} "
            f"| {part['over_the_fastest_peer']:.1f} | {part['of_sgemm']:.0%} |"
        )
        assert row in readme, row
    seconds = record["ourselves"]["workloads"]["strided-1"]["product"]
    assert f"{seconds['hvp']['median'] / seconds['gradient']['median']:.2f} gradients" in readme
    digests = [
        d
        for part in record["ourselves"]["workloads"].values()
        for found in part["bits"].values()
        for d in found
    ]
    assert len(set(digests)) == len(record["ourselves"]["workloads"])
