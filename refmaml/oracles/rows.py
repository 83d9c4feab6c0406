"""Rows of rung 7, on kernels that may do anything, raise included."""

import numpy as np

from refmaml.oracles.tolerance import Check


def attempted(subject, checks, *arguments):
    """The Check or Checks that checks(*arguments) makes; where it raises, a failed one that says so, and those after it go on. A kernel
    that does not compile, or a driver that gives up, is to cost its own row and not all others'."""
    try:
        made = checks(*arguments)
    except Exception as error:  # NVRTC, the driver and CuPy each have exceptions of their own
        said = (str(error).strip().splitlines() or [""])[0]
        made = Check(
            "7 kernels", subject, "raised", f"{type(error).__name__}: {said}"[:160], np.inf, 0.0
        )
    return [made] if isinstance(made, Check) else made


def on(kernels, subject, dtype, shared=False):
    """A subject's name in a row of rung 7; shared: with parameters that all tasks share."""
    return f"{subject}{', shared' if shared else ''} [{kernels.name}, {np.dtype(dtype).name}]"
