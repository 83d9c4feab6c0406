"""The derivative ladder on the Numba kernels on a GPU, where Numba finds one.

    python -m refmaml.bench.gpu.numba_ladder FILE.json
"""
import sys

from refmaml.bench.gpu.part import finished
from refmaml.cli import main as refmaml
from refmaml.cli.kernels import kernel_set
from refmaml.errors import ArgumentError


def main(path):
    """`refmaml verify`, or why not."""
    try:
        kernel_set("numba_cuda")
    except ArgumentError as reason:
        print(f"not available: {reason}")
        return finished(path, {}, None, str(reason))
    return refmaml(["verify", "--kernels", "numba_cuda", "--json", path])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
