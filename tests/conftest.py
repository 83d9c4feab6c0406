"""What several files of tests share."""
import pytest


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
