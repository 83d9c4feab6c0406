"""The package as a whole: what its import loads, and what its distributions contain."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


def python(code, cwd=ROOT):
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)


def test_importing_refmaml_loads_no_library_that_only_some_functions_use():
    out = python(
        "import sys, refmaml; print([m for m in ('scipy', 'matplotlib', 'tqdm', 'PIL', 'numba', "
        "'argparse', 'torch', 'jax', 'mpi4py', 'tensorboardX') if m in sys.modules])"
    )
    assert out.stdout.strip() == "[]", out.stdout + out.stderr


def test_kernels_are_not_importable_under_the_name_of_their_folder():
    out = python("import kernels")
    assert out.returncode == 1 and "import it as refmaml.kernels" in out.stderr


# ---- what is distributed -------------------------------------------------------------


class Distributions(NamedTuple):
    names: set
    texts: dict
    members: set
    wheel: Path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The contents of a wheel and of a source distribution, as Distributions.

    names    of the files in the wheel
    texts    {name: text} of its code and documents
    members  the names of the files in the source distribution
    wheel    the path of the wheel
    """
    folder = tmp_path_factory.mktemp("dist")
    source = copy_of_the_tree(folder / "source")
    build = (
        "from setuptools import build_meta as b\n"
        f"b.build_wheel({str(folder)!r})\n"
        f"b.build_sdist({str(folder)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        texts = {n: archive.read(n).decode() for n in names if n.endswith((".py", ".md"))}
    with tarfile.open(sdist) as archive:
        members = {name.partition("/")[2] for name in archive.getnames()}
    return Distributions(names, texts, members, wheel)


def tracked():
    """The paths that belong to the project: those that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode != 0:
        pytest.skip("this is no git repository: the files of the project are not known")
    return [line for line in listed.stdout.splitlines() if (ROOT / line).exists()]


def copy_of_the_tree(folder):
    """The project's files alone: a build leaves files beside them."""
    for name in tracked():
        target, source = folder / name, ROOT / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(source.readlink())
        else:
            target.write_bytes(source.read_bytes())
    return folder


def test_the_wheel_has_every_module_kernel_and_document(distributions):
    names = distributions.names
    for path in tracked():
        installed = re.sub(r"^(kernels|docs)/", r"refmaml/\1/", path)
        belongs = path.startswith(("refmaml/", "kernels/", "docs/")) and path != "refmaml/kernels"
        if belongs and path.endswith((".py", ".cu", ".md", ".cpp", ".typed")):
            assert installed in names or path == "kernels/README.md", installed
    assert "refmaml/py.typed" in names


def test_every_document_that_an_installed_text_names_is_in_the_wheel(distributions):
    """`docs/golden.md` in a text is refmaml/docs/golden.md there."""
    names, texts = distributions.names, distributions.texts
    named = {
        (place, name)
        for place, text in texts.items()
        for name in re.findall(r"\bdocs/[\w/]+\.\w+", text)
    }
    assert named and all(f"refmaml/{name}" in names for _, name in named), named


def test_the_source_distribution_has_every_file_of_the_project(distributions):
    members = distributions.members
    ignored = {".gitignore", "refmaml/kernels"}
    missing = (
        {name for name in tracked() if not name.startswith((".ci/", ".github/"))}
        - members
        - ignored
    )
    assert not missing, sorted(missing)[:10]


@pytest.mark.slow
def test_nothing_is_left_of_an_installation_that_compiled_its_kernels(distributions, tmp_path):
    """No file is left that Python would import as an empty package."""
    names = distributions.names
    site = tmp_path / "site-packages"
    with zipfile.ZipFile(distributions.wheel) as archive:
        archive.extractall(site)
    environment = {
        **{k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"},
        "PYTHONPATH": str(site),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    code = (
        "import numpy as np, refmaml as rm; k = rm.kernels.cpu(); y = np.zeros((1, 2, 3, 4));"
        "k.bias_forward(y, np.ones((1, 3))); assert y.all(); print(rm.__file__)"
    )
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert out.stdout.startswith(str(site)), out.stdout + out.stderr
    for name in names:
        (site / name).unlink()
    assert [path for path in site.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "cache").rglob("*.nbi"))


def test_the_golden_command_names_a_document_that_exists():
    from refmaml.documents import document

    assert document("golden.md").is_file()
