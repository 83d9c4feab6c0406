"""What several files of tests share."""
import os

import pytest


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
    """The CUDA kernels on it."""
    from refmaml import kernels
    return kernels.cuda(device)


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
