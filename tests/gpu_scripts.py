"""The scripts of benchmarks/gpu as modules, for tests."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def load_script(name):
    """A script as a module; it does not change sys.path."""
    path, before = ROOT / "benchmarks" / "gpu" / name, list(sys.path)
    spec = importlib.util.spec_from_file_location(f"make_gpu_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module
