"""The CUDA text that is compiled for an operation."""

from pathlib import Path

from refmaml.kernels.discovery import folders

RUNTIME = Path(__file__).parent
PRECISIONS = {"float32": "float", "float64": "double"}  # {dtype: REAL in the CUDA text}


def source(operation):
    """The complete CUDA text of an operation: the common text, then its own."""
    return common() + own(operation)


def common():
    """The CUDA text that precedes that of every operation."""
    return concatenated([RUNTIME / name for name in ("common.cu", "gemm_v3.cu")])


def own(operation):
    """The CUDA text of one operation: NAME.cu, then the other .cu files there."""
    return concatenated(sorted(folders()[operation].glob("*.cu")))


def concatenated(files):
    """The texts of the files, marked so that compilers name the file and the line."""
    return "".join(f'#line 1 "{path.name}"\n{path.read_text()}' for path in files)
