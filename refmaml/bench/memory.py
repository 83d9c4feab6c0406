"""Resident memory of this process, as Linux counts it in /proc.

getrusage's largest resident size is not used: a child process inherits its parent's.
"""

import ctypes
import gc
import re
import sys
from pathlib import Path

from refmaml.errors import expect


def resident(field):
    """Bytes of resident memory, or None on a system without /proc.

    field  "VmRSS": now; "VmHWM": the largest since the start or since `reset_peak`
    """
    try:
        found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def reset_peak():
    """Set the peak to the bytes resident now and return them; None where impossible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return resident("VmRSS")


def peak_memory(run):
    """Bytes by which run() raises the peak of this process's resident memory.

    Raises ArgumentError on any system but Linux with glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    expect(
        trim is not None, "system", "Linux with glibc, where peak memory can be reset", sys.platform
    )
    gc.collect()
    trim(0)  # otherwise run() could reuse freed memory that still counts as resident
    before = reset_peak()
    run()
    return resident("VmHWM") - before
