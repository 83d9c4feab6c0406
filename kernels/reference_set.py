"""The reference kernels as a set: the implementation to read, and to hold others against."""

import numpy as np

from refmaml.kernels.kernel_set import KernelSet, collect


def reference(xp=np):
    """The reference kernels: array expressions, any strides, any float or complex dtype.

    They are analytic (branches look at real parts only; no abs, conj or maximum), so that
    a complex step runs through them. xp is the array module, NumPy or one like it.
    """
    return KernelSet("reference", collect("reference"), xp)
