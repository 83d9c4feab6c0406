"""docs/pages/: the committed pages are those that the sources give; `refmaml learn`."""

import importlib.util
import re
import webbrowser
from pathlib import Path

import pytest

from refmaml import documents
from refmaml.cli import main

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "pages"
SCRIPTS = [path for path in sorted((PAGES / "src").iterdir()) if path.suffix in (".js", ".css")]
NAMES = sorted(path.stem for path in PAGES.glob("*.html"))
ROWS = (14, 17, 32, 15, 8)  # formulas, figures and claims of each source
LARGEST = 300_000  # bytes of a page: it opens at once, also from a slow stick


@pytest.fixture(scope="module")
def build():
    """docs/pages/src/build.py as a module."""
    spec = importlib.util.spec_from_file_location("build", PAGES / "src" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_new_build_gives_the_committed_bytes(build, tmp_path):
    written = build.main(tmp_path)
    assert sorted(path.stem for path in written) == NAMES
    for path in written:
        same = path.read_bytes() == (PAGES / path.name).read_bytes()
        assert same, f"{path.name} differs from its sources: run make pages"


def test_formulas_and_names_of_numbers_become_markup(build):
    text = build.markup(r"$a_k$ is {{size}}: $$\frac{1}{\live{slope}}$$ [[docs/gpu.md]]")
    assert text.count("<math") == 2 and '<mn data-live="slope">' in text
    assert 'data-live="size"' in text and 'href="../../docs/gpu.md"' in text
    assert not re.search(r"[$\\]|\{\{|\[\[", text)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short_and_at_most_100_columns_wide(path):
    lines = path.read_text().splitlines()
    assert len(lines) < 300 and max(map(len, lines)) <= 100


def visible(name):
    """The text of a page outside of its script and style."""
    text = (PAGES / f"{name}.html").read_text()
    return re.sub(r"<(script|style)>.*?</\1>", "", text, flags=re.S)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_one_file_whose_formulas_are_all_converted(name):
    text, whole = visible(name), (PAGES / f"{name}.html").read_text()
    assert not re.search(r"[$\\]|\{\{|\[\[|<!-- ", text)
    assert not re.search(
        r"https?://(?!www\.w3\.org/)|\bimport\b|\bfetch\(|<link rel=\"style", whole
    )
    assert len(whole.encode()) < LARGEST


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_page_links_to_exists(name):
    links = re.findall(r'href="([^"#]+)"', visible(name))
    local = [link for link in links if not link.startswith("data:")]
    assert local and all((PAGES / link).exists() for link in local)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "index"])
def test_a_page_has_an_idea_a_figure_a_question_and_the_code_that_computes_it(name):
    text = visible(name)
    for part in ('class="idea"', "<svg id=", "data-live=", "<details>", "<b>Question.</b>"):
        assert part in text, part
    assert re.search(r'href="../../refmaml/\S+\.py"', text)
    assert re.search(r'href="../../tests/\S+\.py"', text)


# ---- the table of all formulas -------------------------------------------------------


def table_rows():
    """[row, what, page, code, test] of each line of docs/mathematics/README.md."""
    text = (ROOT / "docs" / "mathematics" / "README.md").read_text()
    return [line.strip("| ").split(" | ") for line in re.findall(r"^\| [A-E]\d.*\|$", text, re.M)]


def test_the_table_of_formulas_has_every_row_once_and_says_which_wait():
    rows = table_rows()
    assert [row[0] for row in rows] == [
        f"{part}{i}" for part, count in zip("ABCDE", ROWS, strict=True) for i in range(1, count + 1)
    ]
    for row in rows:
        told = row[3] == "told, not computed"
        waits = row[2] == "not yet"
        assert len(row) == 5 and (row[3:] == ["-", "-"] if waits else told or "`" in row[4]), row


# ---- refmaml learn -------------------------------------------------------------------


def test_learn_lists_every_page(capsys):
    assert main(["learn"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^{name} +\S", out, re.M) for name in NAMES) and str(PAGES) in out


@pytest.mark.parametrize("found", [True, False])
def test_learn_opens_a_page_from_disk(found, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or found)
    assert main(["learn", "anchor"]) == 0
    assert opened == [(PAGES / "anchor.html").as_uri()]
    out = capsys.readouterr().out
    assert str(PAGES / "anchor.html") in out and ("no browser" in out) != found
    assert main(["learn", "anchor", "--no-browser"]) == 0 and len(opened) == 1


def test_learn_tells_a_page_that_it_lies_in_an_installed_package(tmp_path, capsys, monkeypatch):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.setattr(documents, "PACKAGE", tmp_path)
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert main(["learn", "anchor"]) == 0 and str(tmp_path) in capsys.readouterr().out
    assert len(opened) == 1 and opened[0].endswith("anchor.html#installed")


def test_learn_names_the_pages_if_there_is_none_of_that_name(capsys):
    assert main(["learn", "nothing"]) == 2
    assert re.search(r"page: expected one of .*anchor.*, got 'nothing'", capsys.readouterr().err)
