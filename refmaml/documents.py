"""Where the documents lie: docs/ in a checkout, refmaml/docs in an installation."""

from pathlib import Path


def document(name: str) -> Path:
    """The path of a document, e.g. document("golden.md")."""
    package = Path(__file__).parent
    installed = package / "docs"
    return (installed if installed.is_dir() else package.parent / "docs") / name
