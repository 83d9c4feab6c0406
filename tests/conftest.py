"""What several files of tests share."""

import os
import signal

import pytest

from refmaml.interrupts import SIGNALS


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """Where compiled kernels lie, for all processes of this run."""
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
    """The CUDA kernels on it, with NumPy's arrays."""
    from refmaml import kernels

    return kernels.cuda(device)


SMALL = 32  # threads of a team and of a block on the stand-in: a fiber costs what a number costs a hundred times over


@pytest.fixture(scope="session")
def quick_libraries(libraries):
    """The CUDA kernels with small teams, {precision: library}, for tests of what launches them."""
    from cuda_shim.build import ABSENT

    if ABSENT:
        pytest.skip(ABSENT)
    from cuda_shim import kernels

    return kernels.libraries(libraries, team=SMALL)


@pytest.fixture
def cupy(quick_libraries, monkeypatch):
    """A stand-in for the module cupy, imported as cupy while the test runs. Teams are small: only the plain products (version=1) fit."""
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
    """The CUDA kernels on its arrays."""
    from refmaml import kernels

    return kernels.cuda(version=1)


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """A folder of golden vectors that nobody may write into."""
    from refmaml.golden import check

    folder = tmp_path_factory.mktemp("golden") / "vectors"
    check.write(folder, {"command": "test"})
    return folder


@pytest.fixture
def copy(golden, tmp_path):
    """One to damage."""
    from shutil import copytree

    return copytree(golden, tmp_path / "copy")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which the test is in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_configure(config):
    """Signals as on a terminal: a shell has what it starts in the background ignore Ctrl-C, nohup has it ignore that the terminal closes,
    and a run that finds a signal ignored leaves it so."""
    for signum in SIGNALS:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(
                signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL
            )
