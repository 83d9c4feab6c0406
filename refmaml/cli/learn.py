"""`refmaml learn`: lists the pages that teach, or opens one in the browser.

A page is one HTML file without any other: it opens from disk and needs no network.
"""

import html
import re
import textwrap

from refmaml.documents import document, installed
from refmaml.errors import expect

FOUND = re.compile(r'<meta name="description" content="([^"]*)">\s*<title>(.*) - refmaml</title>')
LINE = 80  # columns of the list
BEGINNING = 4096  # bytes of a page that hold its title and its description


def add(subparsers):
    """Register the command."""
    command = subparsers.add_parser(
        "learn",
        help="open a page that explains one idea with a figure to drag",
        description="Opens a page of docs/pages in the browser, from disk. Without a name, "
        "lists the pages.",
    )
    command.add_argument("page", metavar="PAGE", nargs="?", help="a name from the list")
    command.add_argument(
        "--no-browser", action="store_true", help="print where the page is; open nothing"
    )
    command.set_defaults(func=run)


def run(arguments):
    """List the pages, or open one; returns 0."""
    pages = {path.stem: path for path in sorted(document("pages").glob("*.html"))}
    expect(pages, "pages", f"the pages of refmaml in {document('pages')}", "none")
    if arguments.page is None:
        width = max(map(len, pages)) + 2
        for name, path in pages.items():
            lines = textwrap.wrap(description(path), LINE - width)
            print(f"{name:{width}}" + f"\n{'':{width}}".join(lines))
        print(f"\nrefmaml learn PAGE opens one; they are in {document('pages')}")
        return 0
    wanted = f"one of {', '.join(pages)}"
    expect(arguments.page in pages, "page", wanted, repr(arguments.page))
    open_page(pages[arguments.page], browser=not arguments.no_browser)
    return 0


def description(path):
    """Title and idea of a page."""
    with open(path, encoding="utf-8") as file:
        idea, title = (html.unescape(part) for part in FOUND.search(file.read(BEGINNING)).groups())
    return f"{title}. {idea}"


def open_page(path, browser):
    """Open a page in the browser, if there is one, and print where the page is."""
    import webbrowser

    # The mark after # makes the page's links to the code fit an installed package.
    address = path.resolve().as_uri() + ("#installed" if installed() else "")
    opened = browser and webbrowser.open(address)
    print(path if opened or not browser else f"no browser was found; open this file: {path}")
