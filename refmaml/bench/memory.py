"""Memory of this process, as Linux counts it. (getrusage's largest is that of the process it was started from, if that had more.)"""

import ctypes
import gc
import re
import sys
from pathlib import Path

from refmaml.errors import expect


def resident(field):
    """Bytes, "VmRSS" (resident now) or "VmHWM" (at most since the start or `reset_peak`), or None where the system has no /proc."""
    try:
        found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def reset_peak():
    """Have the peak start from what is resident now; those bytes, or None where that cannot be."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return resident("VmRSS")


def peak_memory(run):
    """Bytes by which run() raises the resident memory of this process at its peak. Raises ArgumentError but on Linux with glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    expect(
        trim is not None, "system", "Linux with glibc, where peak memory can be reset", sys.platform
    )
    gc.collect()
    trim(0)  # else run() would be given freed memory that still counts as resident
    before = reset_peak()
    run()
    return resident("VmHWM") - before
