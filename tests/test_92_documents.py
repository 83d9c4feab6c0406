"""The documents: length of the README, links, figures, width of prose.

The figures are those of the committed results.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from refmaml.cli.omniglot.protocols import PUBLISHED, ROWS, TABLES

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        *(
            "*.md",
            "docs/*.md",
            "docs/findings/*.md",
            "docs/homework/*.md",
            "docs/mathematics/*.md",
            "docs/pages/*.md",
            "examples/*.md",
            "refmaml/layers/*.md",
        ),
        *("benchmarks/README.md", "benchmarks/omniglot/README.md"),
    )
    for path in ROOT.glob(pattern)
)


def without_code(text):
    """Markdown without fenced and indented blocks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def headings(text):
    return re.findall(r"^#+ (.+)$", without_code(text), re.M)


# ---- the README ----------------------------------------------------------------------


def test_the_readme_has_at_most_800_words_outside_code():
    text = re.sub(r"\]\([^)]*\)", "]", without_code(README.read_text()))
    words = re.findall(r"\S*\w\S*", text)
    assert 200 < len(words) <= 800, len(words)


def test_the_readme_has_at_least_two_pictures_and_each_has_a_description():
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", README.read_text())
    assert len({path for _, path in pictures}) >= 2
    assert all(len(text) > 20 and (ROOT / path).suffix == ".png" for text, path in pictures)


def test_the_readme_keeps_its_order():
    """One sentence, commands, example, the demo's picture, the doctor's output.

    Then formulas and table of methods, the picture of speed, and links.
    """
    text = README.read_text()
    parts = (
        "without autodiff",
        "make demo",
        "import refmaml as rm",
        "```text\nloss",
        "![Accuracy",
        "$ refmaml doctor",
        "lam_K = grad g(phi_K)",
        "| MAML |",
        "benchmarks/bench/bench.png",
        "## Documents",
    )
    places = [text.find(part) for part in parts]
    assert -1 not in places and places == sorted(places), dict(zip(parts, places, strict=True))


def test_the_readme_s_example_prints_the_readme_s_output(capsys):
    pattern = r"```python\n(.*?)```\s*```text\n(.*?)```"
    code, printed = re.search(pattern, README.read_text(), re.S).groups()
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_the_table_of_methods_names_files_that_exist():
    files = re.findall(r"^\| .* \| `(\w+\.py)` \|$", README.read_text(), re.M)
    assert len(files) >= 9 and all((ROOT / "refmaml/methods" / name).is_file() for name in files)


def test_refmaml_is_the_fastest_on_each_net_as_the_readme_says():
    parts = committed("bench/bench.json")["meta"]
    assert min(part["over_the_fastest_peer"] for part in parts) > 1
    assert "fastest on each of these nets" in " ".join(README.read_text().split())


# ---- every document ------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_links_to_exists(name):
    text = without_code((ROOT / name).read_text())
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert ((ROOT / name).parent / link).exists(), link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_heading_that_a_document_links_to_exists(name):
    text = (ROOT / name).read_text()
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text):
        target = ((ROOT / name).parent / link) if link else ROOT / name
        anchors = [
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in headings(target.read_text())
        ]
        assert anchor in anchors, f"{link}#{anchor}"


# Paths that only an installation has, or that only a GPU can write.
ELSEWHERE = {"refmaml/docs", "benchmarks/gpu/gpu.json"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_that_a_document_names_exists(name):
    text = (ROOT / name).read_text()
    folders = "refmaml|kernels|tests|benchmarks|docs|examples"
    for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
        assert path in ELSEWHERE or (ROOT / path).exists(), path


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_prose_of_a_document_is_at_most_88_columns_wide(name):
    for number, line in enumerate(without_code((ROOT / name).read_text()).splitlines()):
        free = line.lstrip().startswith(("|", "![", "<!--"))
        assert free or len(line) <= 88, f"{name}, line {number} outside code: {line[:60]}..."


def test_the_index_lists_every_document():
    index = (ROOT / "docs/README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        guide = path.name.startswith("add_a_")  # CONTRIBUTING.md links to these
        page = (ROOT / "CONTRIBUTING.md").read_text() if guide else index
        assert path.name == "README.md" or path.name in page, path.name


# ---- figures -------------------------------------------------------------------------


def committed(name):
    return json.loads((ROOT / "benchmarks" / name).read_text())


@pytest.fixture
def results():
    """docs/results.md in one line."""
    return " ".join((ROOT / "docs/results.md").read_text().split())


def table_of_results():
    return (ROOT / "docs/results.md").read_text()


def test_the_figures_of_the_ladder_are_those_of_the_committed_results(results):
    rows = committed("verify.json")["rows"]
    assert all(row["passed"] for row in rows) and f"{len(rows)} checks" in results
    right = [row for row in rows if row["rung"] != "4 planted error"]
    planted = [row["subject"].startswith("MAML, ") for row in rows if row not in right]
    assert sum(planted) == 5 and "Five wrong meta-gradients" in results
    assert f"So are {len(planted) - 5} wrong ones of policies" in results
    largest = max(row["error"] / row["tolerance"] for row in right)
    assert f"{largest:.0%} of the tolerance" in results
    for phrase, chosen in (
        ("Passes of layers are within {} of", lambda row: row["rung"][0] in "123"),
        ("Meta-gradients are within {} of", lambda row: row["rung"] == "4 meta-gradient"),
        ("hypergradients are within {}", lambda row: row["rung"] == "4 hypergradient"),
        ("JAX agree in float64 to {}", lambda row: row["oracle"] in ("torch", "jax")),
    ):
        worst = max(row["error"] for row in rows if chosen(row))
        assert phrase.format(f"{worst:.0e}") in results


def test_the_figures_of_the_demo_are_those_of_the_committed_results(results):
    for result in committed("demo/demo.json")["results"].values():
        accuracy, interval = 100 * result["accuracy"], 100 * result["interval"]
        assert f"{accuracy:.1f} +- {interval:.1f} %" in results


def test_the_figures_of_inner_momentum_are_those_of_the_committed_results(results):
    record = committed("inner_momentum.json")
    means, widest = record["means"], max(row["interval"] for row in record["rows"])
    assert f"{means['momentum']:.1f} % with momentum and {means['plain']:.1f} %" in results
    assert f"The interval of a run is {widest:.1f} points at most" in results
    assert abs(means["momentum"] - means["plain"]) <= widest


def test_the_figure_of_two_ranks_is_that_of_the_committed_results(results):
    times = f"{committed('ranks/ranks.json')['two_ranks_over_one']:.2f} times as fast"
    assert times in results and times in " ".join((ROOT / "docs/runs.md").read_text().split())


def test_the_figures_of_reliability_are_those_of_the_committed_results(results):
    kill, fuzz = committed("reliability/kill.json"), committed("reliability/fuzz.json")
    assert f"killed {kill['kills']} runs" in results
    assert kill["corrupt"] == kill["runs_with_something_wrong"] == 0
    assert fuzz["command"].endswith("--seconds 600") and "for ten minutes" in results
    assert fuzz["escapes"] == 0


def percent(evaluation):
    return f"{100 * evaluation['accuracy']:.1f} +- {100 * evaluation['interval']:.1f}"


def cell(protocol, row):
    """What the page says of a cell of the Omniglot table."""
    if row not in TABLES[protocol]:
        return "-"
    path = ROOT / "benchmarks/omniglot" / protocol / "5w1s" / row / "result.json"
    result = json.loads(path.read_text()) if path.exists() else {"finished": False}
    if not result["finished"]:
        return "not run to its end"
    together, alone = (
        percent(result["evaluations"][way]) for way in ("transductive", "one at a time")
    )
    return f"**{together}** ({alone})"


@pytest.mark.parametrize("row", ROWS)
def test_the_omniglot_table_is_that_of_the_committed_results(row):
    published = PUBLISHED[row]["5w1s"]
    cells = (
        ROWS[row],
        cell("as-published", row),
        f"{published.accuracy} +- {published.interval}",
        cell("equal", row),
    )
    line = f"| {' | '.join(cells)} |"
    assert line in table_of_results(), line


def test_imaml_as_it_works_is_what_the_documents_say(results):
    page = " ".join((ROOT / "docs/imaml.md").read_text().split())
    for row in ("imaml", "imaml-hf"):
        found = committed(f"omniglot/as-it-works/5w1s/{row}/result.json")
        together, alone = (
            percent(found["evaluations"][way]) for way in ("transductive", "one at a time")
        )
        assert f"{together} % ({alone})" in results and found["steps"] == 5000
        assert f"{together} % ({alone} one at a time)" in page or row == "imaml"
        curve = (ROOT / f"benchmarks/omniglot/as-it-works/5w1s/{row}/curve.csv").read_text()
        head, *lines = (line.split(",") for line in curve.split())
        assert max(float(line[head.index("inner_residual")]) for line in lines) < 0.08
    paper = committed("omniglot/as-published/5w1s/imaml-hf/result.json")
    assert f"{percent(paper['evaluations']['transductive'])} % after {paper['steps']} of" in page


def test_the_curves_of_imaml_are_those_of_the_committed_result():
    page = (ROOT / "docs/imaml.md").read_text()
    for run in committed("omniglot/imaml-curvature.json")["runs"].values():
        first, last, curve = run["probes"][0], run["probes"][-1], run["curve"]
        numbers = (
            f"{run['steps']:,}",
            f"{np.median(first['eigenvalue_at_theta']):.0f}",
            f"{np.median(last['eigenvalue_at_theta']):.0f}",
            f"{curve['inner_residual'][0]:.2f}",
            f"{curve['inner_residual'][-1]:.2f}",
            f"{run['steps_with_inner_residual_above_0.1']:,}",
            f"{np.median(last['cg_residual']):.1g}",
            f"{curve['accuracy'][-1]:.0%}",
        )
        line = f"| {run['title']} | {' | '.join(numbers)} |"
        assert line in page, line
        judged = (
            f"{100 * found['accuracy']:.1f} +- {100 * found['interval']:.1f}"
            for found in (run["held_out"][way] for way in ("transductive", "one at a time"))
        )
        assert f"| {run['title']} | {' | '.join(judged)} |" in page
    assert f"at most {run['largest_inner_residual']:.2f}" in page


def test_the_result_after_two_hours_is_committed(results):
    result = committed("omniglot/at-two-hours.json")
    assert f"{percent(result)} % (step {result['steps']:,})" in results


def milliseconds(seconds):
    return f"{1e3 * seconds:,.0f} ms" if seconds >= 0.1 else f"{1e3 * seconds:.3g} ms"


def title_of(part):
    n = part["tasks"]
    return f"{part['title'].removesuffix(', 1 task')}, {n} task{'s' * (n > 1)}"


def test_the_times_are_those_of_the_committed_bench(results):
    record = committed("bench/bench.json")
    for part in record["meta"]:
        by_name = {r["name"]: r for r in part["results"]}
        peer = min(part["times_as_fast_as"], key=part["times_as_fast_as"].get)
        ours, best = (by_name[name]["seconds"]["median"] for name in ("refmaml", peer))
        row = (
            f"| {title_of(part)} | {milliseconds(ours)} "
            f"| {by_name[peer]['title']}: {milliseconds(best)} "
            f"| {part['over_the_fastest_peer']:.1f} | {part['of_sgemm']:.0%} |"
        )
        assert row in table_of_results(), row
    seconds = record["ourselves"]["workloads"]["strided-1"]["product"]
    ratio = seconds["hvp"]["median"] / seconds["gradient"]["median"]
    assert f"{ratio:.2f} gradients" in results
    digests = [
        digest
        for part in record["ourselves"]["workloads"].values()
        for found in part["bits"].values()
        for digest in found
    ]
    assert len(set(digests)) == len(record["ourselves"]["workloads"])
