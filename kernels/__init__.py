"""Kernels: raw arrays in, arrays filled in place. One folder per operation, one file per implementation.

Nothing here knows of layers, networks or tasks; a layer asks a `KernelSet` for `conv2d_forward` and does not know which
implementation it got. `reference()` is the one to read, and the one every other implementation is held against.
"""

if __name__ != "refmaml.kernels":
    raise ImportError(
        "kernels: import it as refmaml.kernels, got a plain import of 'kernels' "
        "(that would make a second copy of every module)"
    )

from refmaml.kernels.kernel_set import KernelSet, auto, cpu, cuda, numba_cuda
from refmaml.kernels.reference_set import reference

__all__ = ["KernelSet", "auto", "cpu", "cuda", "numba_cuda", "reference"]
