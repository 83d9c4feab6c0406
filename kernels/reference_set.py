"""The reference kernels as a set: the code to read, and the standard for others."""

from refmaml.kernels.discovery import collect
from refmaml.kernels.kernel_set import KernelSet


def reference():
    """The reference kernels on NumPy's arrays: any strides, any float or complex dtype.

    They are analytic (branches look at real parts only; no abs, conj or maximum), so
    that a complex step runs through them.
    """
    functions, _ = collect("reference")
    return KernelSet("reference", functions).made_by(reference)
