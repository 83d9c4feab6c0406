"""`refmaml verify --kernels numba_cuda`, into a file: a section of `make gpu`.

    python -m refmaml.cli.verify_numba_cuda FILE.json

The Numba kernels on a GPU against the reference kernels: rung 7 of the derivative
ladder. Where Numba finds no GPU, the file has the reason.
"""

import os
import sys
from pathlib import Path

import numpy as np

from refmaml.bench.gpu.result_file import write_result
from refmaml.cli import main as refmaml
from refmaml.cli.kernels import kernel_set
from refmaml.errors import ArgumentError

CUDA = Path("/usr/local/cuda")  # the default folder of its installer


def main(path):
    """Write the file and return the exit status."""
    work_around_numba()
    try:
        kernel_set("numba_cuda")
    except ArgumentError as reason:
        print(f"not available: {reason}")
        return write_result(path, {}, None, str(reason))
    return refmaml(["verify", "--kernels", "numba_cuda", "--against-reference", "--json", path])


def work_around_numba():
    """Provide, in this process, what numba-cuda 0.30 lacks on some machines.

    A name that NumPy 2.5 has removed, and the folder of the CUDA compiler.
    """
    if not hasattr(np, "row_stack"):
        np.row_stack = np.vstack
    if CUDA.is_dir():
        os.environ.setdefault("CUDA_HOME", str(CUDA))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
