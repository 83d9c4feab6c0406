"""What a result was computed with: versions, operating system, processor, cores."""

import os
import platform
from pathlib import Path

import numpy as np

from refmaml.version import __version__


def circumstances():
    """{"versions": {name: version}, "machine": {"system", "processor", "cores"}}."""
    versions = {
        "refmaml": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    machine = {
        "system": platform.system(),
        "processor": processor(),
        "cores": len(available_cores()),
    }
    return {"versions": versions, "machine": machine}


def available_cores():
    """The numbers of the cores that this process may use, a set."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def processor():
    """The model name of the processor, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
