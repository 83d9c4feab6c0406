"""Builds the pages in docs/pages/ from the sources in this folder: `make pages`.

Each page is one file that needs nothing else: style, mathematics, interaction and the
page's own script are put into it, and formulas become MathML. A source NAME.html begins
with lines "key: value", then a line "---", then HTML in which

    $...$ and $$...$$   are formulas in TeX, in a line and on a line of their own
    \\live{name}         in a formula is a number that the page's script fills in
    {{name}}            is such a number in the text
    [[path]]            is a link to a file of the project

The keys are title, short (a shorter title, for the links), idea (one or two sentences),
order, uses (further scripts of this folder, such as nets.js), and `map`, one line for
each formula: "formula | file that computes it | test that checks it". NAME.js is the
page's script. It finds the content of NAME.json, if there is one, as DATA. The same
sources give the same bytes.
"""

import html
import re
import sys
from pathlib import Path
from typing import NamedTuple

from latex2mathml.converter import convert

SOURCES = Path(__file__).resolve().parent
PAGES = SOURCES.parent
INDEX = "index"
TEXT = "<h2>What you see</h2>"
FIRST, LAST = "mathematics.js", ("panel.js", "figure.js")  # what every page carries


# A sample of a line and the word or formula after it, which stay on one line.
KEY = re.compile(
    r'(<span class="key[^"]*"></span>) ?(<math(?:(?!</math>).)*</math>|<span.*?</span>|[^\s<]+)'
)


class Page(NamedTuple):
    """The source of one page; rows are (formula, source file, test file)."""

    name: str
    title: str
    short: str
    idea: str
    order: int
    uses: list
    rows: list
    body: str


def read(path):
    """The Page of a source file."""
    head, _, body = path.read_text(encoding="utf-8").partition("\n---\n")
    fields, rows = {}, []
    for line in head.splitlines():
        key, _, value = line.partition(": ")
        if key == "map":
            rows.append(tuple(part.strip() for part in value.split(" | ")))
        else:
            fields[key] = value
    title, short = fields["title"], fields.get("short", fields["title"])
    uses, order = fields.get("uses", "").split(), int(fields["order"])
    return Page(path.stem, title, short, fields["idea"], order, uses, rows, body)


def sources():
    """All pages in their order."""
    pages = [read(path) for path in SOURCES.glob("*.html") if path.stem != "shell"]
    return sorted(pages, key=lambda page: page.order)


def formula(tex, display="inline"):
    """MathML of a formula; \\live{name} becomes a number with that name."""
    tex = re.sub(r"\\live\{(\w+)\}", r"\\text{@\1@}", tex)
    mathml = convert(tex, display=display)
    return re.sub(r"<mtext>@(\w+)@</mtext>", r'<mn data-live="\1">0</mn>', mathml)


def inline(tex, mark):
    """A formula in a line; the punctuation mark after it begins no new line."""
    return f'<span class="whole">{formula(tex)}{mark}</span>' if mark else formula(tex)


def link(path):
    """A link to a file of the project; the text is its path."""
    return f'<a class="source" href="../../{path}"><code>{path}</code></a>'


def markup(text):
    """HTML of the page's own notation."""
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: formula(m[1].strip(), "block"), text, flags=re.S)
    text = re.sub(r"\$([^$]+)\$([.,;:?!)]*)", lambda m: inline(m[1], m[2]), text)
    text = KEY.sub(r'<span class="whole">\1 \2</span>', text)
    text = re.sub(r"\{\{(\w+)\}\}", r'<span class="number" data-live="\1"></span>', text)
    return re.sub(r"\[\[(.+?)\]\]", lambda m: link(m[1]), text)


def row_cells(row):
    """The cells of one row of a map: formula, source, test."""
    tex, source, test = row
    return f"<td>{markup(f'${tex}$')}</td><td>{link(source)}</td><td>{link(test)}</td>"


def table(rows, *columns):
    head = "".join(f'<th scope="col">{column}</th>' for column in columns)
    lines = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody>'
        "</table></div>"
    )


def where_computed(page):
    """The table of the page's formulas, the code and the tests."""
    if not page.rows:
        return ""
    rows = [row_cells(row) for row in page.rows]
    return "<h2>Where it is computed</h2>\n" + table(rows, "formula", "code", "test")


def contents(pages):
    """The index: a list of pages, and the map: formula, page, file, test."""
    items = "\n".join(
        f'<li><a href="{page.name}.html"><b>{page.title}</b></a> {markup(page.idea)}</li>'
        for page in pages
    )
    rows = [
        f'<td><a href="{page.name}.html">{page.title}</a></td>{row_cells(row)}'
        for page in pages
        for row in page.rows
    ]
    return {"LIST": f"<ol>{items}</ol>", "MAP": table(rows, "page", "formula", "code", "test")}


def navigation(page, pages):
    """Links to all pages; the current one is marked."""
    return "\n".join(
        f'<a href="{other.name}.html"'
        + (' aria-current="page"' if other.name == page.name else "")
        + f">{other.short}</a>"
        for other in pages
    )


def script(page):
    """The shared scripts, the page's data, its own script; none may end it early."""
    own, data = (SOURCES / f"{page.name}.{ending}" for ending in ("js", "json"))
    shared = [SOURCES / name for name in (FIRST, *page.uses, *LAST)]
    parts = [path.read_text(encoding="utf-8") for path in shared]
    if data.exists():
        parts.append(f"const DATA = {data.read_text(encoding='utf-8').strip()};")
    if own.exists():
        parts.append(own.read_text(encoding="utf-8"))
    text = "\n".join(parts)
    return text.replace("</script", "<\\/script")


def build(page, pages):
    """The complete text of a page."""
    body = markup(page.body)
    others = [other for other in pages if other.name != INDEX]
    for key, value in contents(others).items() if page.name == INDEX else ():
        body = body.replace(f"<!-- {key} -->", value)
    if TEXT in body:  # in two columns where there is space
        body = body.replace(TEXT, f'{TEXT}\n<section class="text">') + "</section>"
    parts = {
        "TITLE": page.title,
        "DESCRIPTION": html.escape(re.sub(r"[$\\{}]", "", page.idea)),
        "STYLE": (SOURCES / "style.css").read_text(encoding="utf-8"),
        "NAVIGATION": navigation(page, pages),
        "IDEA": markup(page.idea),
        "BODY": body,
        "COMPUTED": where_computed(page),
        "SCRIPT": script(page),
    }
    shell = (SOURCES / "shell.html").read_text(encoding="utf-8")
    return re.sub(r"<!-- ([A-Z]+) -->", lambda m: parts[m[1]], shell)


def main(folder=PAGES):
    """Write every page into a folder; return their paths."""
    pages = sources()
    written = []
    for page in pages:
        path = Path(folder) / f"{page.name}.html"
        path.write_text(build(page, pages), encoding="utf-8", newline="\n")
        written.append(path)
    return written


if __name__ == "__main__":
    for path in main(*sys.argv[1:]):
        print(path)
