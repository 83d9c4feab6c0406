"""The reference kernels as a set: the implementation to read and to test others by."""

import numpy as np

from refmaml.kernels.discovery import collect
from refmaml.kernels.kernel_set import KernelSet


def reference(xp=np):
    """The reference kernels: array expressions, any strides, float or complex dtypes.

    They are analytic (branches look at real parts only; no abs, conj or maximum), so
    that a complex step runs through them. xp is the array module, NumPy or one like it.
    """
    functions, _ = collect("reference")
    return KernelSet("reference", functions, xp).made_by(reference, xp)
