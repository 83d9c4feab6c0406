"""Fixtures and hooks that several test files share."""

import os
import signal
import sys
from pathlib import Path

import pytest
from browser import CHROMIUM, DRIVER

from refmaml.interrupts import SIGNALS


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """The folder of compiled kernels, for all processes of this run."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "libraries"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def device(libraries):
    """A stand-in for a GPU, with every CUDA kernel of the project."""
    from cuda_shim.build import ABSENT

    if ABSENT:
        pytest.skip(ABSENT)
    from cuda_shim.kernels import shim_device

    return shim_device(libraries)


@pytest.fixture(scope="session")
def cuda(device):
    """The CUDA kernels on the stand-in, with NumPy arrays."""
    from refmaml import kernels

    return kernels.cuda(device)


# Threads of a team and of a block on the stand-in. Few, because a thread is a fiber
# here, which takes a hundred times as long as a number.
SMALL = 32


@pytest.fixture(scope="session")
def quick_libraries(libraries):
    """{precision: library} of the CUDA kernels, with small teams."""
    from cuda_shim.build import ABSENT

    if ABSENT:
        pytest.skip(ABSENT)
    from cuda_shim import kernels

    return kernels.libraries(libraries, team=SMALL)


@pytest.fixture
def cupy(quick_libraries, monkeypatch):
    """A stand-in for the module cupy, imported as cupy during the test.

    Its teams are small, so only the plain products (version=1) fit.
    """
    import sys

    from cuda_shim.device import ShimDevice
    from cuda_shim.kernels import stand_in

    from refmaml.kernels.cuda_runtime import launcher

    module = stand_in(ShimDevice(quick_libraries))
    for constant in ("THREADS", "TEAM"):
        monkeypatch.setattr(launcher, constant, SMALL)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def on_cupy(cupy):
    """The CUDA kernels on arrays of the stand-in."""
    from refmaml import kernels

    return kernels.cuda(version=1)


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """A folder of golden vectors. Tests may not write into it."""
    from refmaml.golden import check

    folder = tmp_path_factory.mktemp("golden") / "vectors"
    check.write(folder, {"command": "test"})
    return folder


@pytest.fixture
def copy(golden, tmp_path):
    """A copy of the golden vectors, for a test to damage."""
    from shutil import copytree

    return copytree(golden, tmp_path / "copy")


@pytest.fixture
def table_cache(tmp_path_factory, monkeypatch):
    """The folder of cached tables during the test, empty, and outside of tmp_path."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "refmaml"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current folder during the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def own_scripts():
    """Scripts of benchmarks/ that another test file imported are forgotten: those of
    two folders may have the same name, such as `table`.
    """
    folder = str(Path(__file__).parent.parent / "benchmarks")
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(folder):
            del sys.modules[name]


@pytest.fixture
def reliability(monkeypatch):
    """The scripts of benchmarks/reliability can be imported during the test."""
    root = Path(__file__).parent.parent
    monkeypatch.syspath_prepend(root / "benchmarks" / "reliability")


def pytest_configure(config):
    """Give signals the handlers that they have in a terminal.

    A shell starts its background jobs with Ctrl-C ignored, and nohup starts a program
    with SIGHUP ignored. A run keeps a signal ignored that was ignored at its start.
    """
    for signum in SIGNALS:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(
                signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
            )


def pytest_runtest_setup(item):
    """`@pytest.mark.frameworks("jax")` skips a test where JAX does not import."""
    from refmaml.autodiff.formulas import why_not

    for mark in item.iter_markers("frameworks"):
        for module in mark.args:
            if reason := why_not(module):
                pytest.skip(f"{reason}; make test-frameworks installs it")


# Libraries that cannot stand beside the others: betty needs an old pip, BackPACK and
# curvlinops a torchvision that replaces the CPU build of PyTorch.
APART = {"betty", "backpack", "curvlinops"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """With REFMAML_NO_SKIPS=1 a skipped test fails, so that no test is lost silently.

    Four kinds of tests may be skipped: those that need a GPU, those of the Omniglot
    files if REFMAML_DATA does not name their folder, those of the pages if there is no
    Chromium, and those of libraries that no extra can install (APART).
    """
    report = yield
    if os.environ.get("REFMAML_NO_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        without_data = "real_root" in item.fixturenames and not os.environ.get("REFMAML_DATA")
        without_browser = item.get_closest_marker("browser") and not (CHROMIUM and DRIVER)
        apart = any(APART & {*mark.args} for mark in item.iter_markers("frameworks"))
        allowed = item.get_closest_marker("gpu") or without_data or without_browser or apart
        if not allowed:
            report.outcome, reason = "failed", report.longrepr
            report.longrepr = f"skipped, which REFMAML_NO_SKIPS forbids: {reason[2]}"
    return report
