"""Checks of code that may raise: an exception becomes one failed Check."""

import numpy as np

from refmaml.oracles.tolerance import Check


def guarded(subject, checks, *arguments, rung="7 kernels"):
    """The list of Checks that checks(*arguments) returns.

    checks returns one Check or an iterable of them. If it raises, the list holds one
    failed Check with the error's text. A kernel that does not compile, a driver that
    fails or a net that raises costs its own row, and the rows after it still run.
    """
    try:
        made = checks(*arguments)
        return [made] if isinstance(made, Check) else list(made)
    except Exception as error:  # NVRTC, the driver and CuPy have their own types
        text = (str(error).strip().splitlines() or [""])[0]
        oracle = f"{type(error).__name__}: {text}"[:160]
        return [Check(rung, subject, "raised", oracle, np.inf, 0.0)]


def subject_on(kernels, subject, dtype, shared=False):
    """The name of a subject in a row of rung 7.

    shared: all tasks share the parameters.
    """
    return f"{subject}{', shared' if shared else ''} [{kernels.name}, {np.dtype(dtype).name}]"
