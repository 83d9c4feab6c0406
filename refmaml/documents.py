"""Where the documents lie: docs/ in a checkout, refmaml/docs in an installation."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def installed() -> bool:
    """Whether the documents lie inside of the package."""
    return (PACKAGE / "docs").is_dir()


def document(name: str) -> Path:
    """The path of a document, e.g. document("golden.md")."""
    return (PACKAGE / "docs" if installed() else PACKAGE.parent / "docs") / name
