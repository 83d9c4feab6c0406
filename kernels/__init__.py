"""Kernels take raw arrays and fill arrays in place.

One folder for each operation, one file for each implementation. Nothing here knows of
layers, nets or tasks. A layer calls `conv2d_forward` of the `KernelSet` that it is
given, and does not depend on the implementation. `reference()` is the implementation to
read; all others are tested against it.
"""

if __name__ != "refmaml.kernels":
    raise ImportError(
        "kernels: import it as refmaml.kernels, got a plain import of 'kernels' "
        "(that would make a second copy of every module)"
    )

from refmaml.kernels.factories import NAMES, auto, by_name, cpu, cuda, numba_cuda, reference
from refmaml.kernels.kernel_set import KernelSet

__all__ = ["NAMES", "KernelSet", "auto", "by_name", "cpu", "cuda", "numba_cuda", "reference"]
