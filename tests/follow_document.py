"""Applies the code blocks of a document to a copy of the sources.

A block that starts with "# PATH" is a new file. A block that starts with "--- PATH"
adds lines to an existing file: imports behind the file's imports, all else at the end
of the list or tuple that the caller names.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(?:python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def copy_sources(folder):
    """refmaml/ copied into a folder, and kernels/ linked there; returns the folder.

    No document changes kernels/, and a link keeps what Numba has compiled.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    (folder / "kernels").symlink_to(ROOT / "kernels")
    shutil.copytree(ROOT / "refmaml", folder / "refmaml", symlinks=True, ignore=ignored)
    return folder


def follow(document, folder, end_of_list):
    """Apply every block of a document; returns the paths that changed.

    end_of_list  the line that closes the list into which added lines go
    """
    changed = []
    for block in BLOCK.findall((ROOT / document).read_text()):
        first, _, rest = block.partition("\n")
        if first.startswith("# "):
            path = folder / first[2:]
            assert not path.exists()
            path.write_text(rest)
        elif first.startswith("--- "):
            path = folder / first[4:]
            lines = [line.removeprefix("+") for line in rest.splitlines()]
            path.write_text(added(path.read_text(), lines, end_of_list))
        else:
            continue
        changed.append(str(path.relative_to(folder)))
    return changed


def added(text, lines, end_of_list):
    """The text of a file with lines added to its imports and to a list."""
    imports = [line for line in lines if line.startswith("from ")]
    entries = [line for line in lines if not line.startswith("from ")]
    old = text.splitlines()
    first_import = min(i for i, line in enumerate(old) if line.startswith("from refmaml."))
    last_entry = max(i for i, line in enumerate(old) if line == end_of_list)
    new = [
        *old[:first_import],
        *imports,
        *old[first_import:last_entry],
        *entries,
        *old[last_entry:],
    ]
    return "\n".join(new) + "\n"


def python(folder, *arguments, cwd=None):
    """Run Python on the copy of the sources; returns the finished process."""
    environment = os.environ | {"PYTHONPATH": str(folder), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=cwd or folder,
        capture_output=True,
        text=True,
    )


def printed_json(folder, code):
    """What a script prints as JSON on the copy of the sources; warnings are errors."""
    done = python(folder, "-W", "error", "-c", code)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
