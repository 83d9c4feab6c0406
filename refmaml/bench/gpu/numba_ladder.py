"""The Numba kernels on a GPU, where Numba finds one, against the reference kernels: rung 7 of the derivative ladder.

python -m refmaml.bench.gpu.numba_ladder FILE.json
"""

import os
import sys
from pathlib import Path

import numpy as np

from refmaml.bench.gpu.part import finished
from refmaml.cli import main as refmaml
from refmaml.cli.kernels import kernel_set
from refmaml.errors import ArgumentError

CUDA = Path("/usr/local/cuda")  # where it is installed by default


def main(path):
    """`refmaml verify`, or why not."""
    make_it_start()
    try:
        kernel_set("numba_cuda")
    except ArgumentError as reason:
        print(f"not available: {reason}")
        return finished(path, {}, None, str(reason))
    return refmaml(["verify", "--kernels", "numba_cuda", "--against-reference", "--json", path])


def make_it_start():
    """What numba-cuda 0.30 lacks on some machines, for this process: a name that NumPy 2.5 dropped, and where CUDA's compiler lies."""
    if not hasattr(np, "row_stack"):
        np.row_stack = np.vstack
    if CUDA.is_dir():
        os.environ.setdefault("CUDA_HOME", str(CUDA))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
