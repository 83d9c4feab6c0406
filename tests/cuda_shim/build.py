"""CUDA files compiled by g++, with cuda_shim.h in front of them."""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OPTIONS = (
    "-x",
    "c++",
    "-std=c++17",
    "-g",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-fno-gnu-unique",
    "-U_FORTIFY_SOURCE",
    "-Wall",
    "-Wno-unknown-pragmas",
)
# A GPU loads and stores 16 bytes at once only at aligned addresses.
SANITIZER = (
    "-fsanitize=address,alignment",
    "-fno-sanitize-recover=alignment",
    "-fsanitize-sections=cuda_shared",
)
C_TYPE = {"float32": "float", "float64": "double"}
ABSENT = (
    None
    if sys.platform == "linux" and shutil.which("g++")
    else "the CUDA kernels run on a CPU only under Linux with g++"
)


def kernel_names(source):
    """The kernels that a CUDA text defines."""
    return re.findall(
        r'extern "C" __global__ void(?:\s+__launch_bounds__\(\w+\))?\s+(\w+)\(', source
    )


def build(common, sources, dtype, folder, sanitize=False, once=False):
    """The path of a library for one precision, compiled from CUDA texts as they are.

    common   the text that all share
    sources  {operation: CUDA text}, each compiled in a namespace of its own
    once     compile without optimisation, for a library that will do little

    The library is reused where `folder` has it from the same text.
    """
    text = f'#include "cuda_shim.h"\n{common}\n'
    for operation, source in sources.items():
        exports = "\n".join(f"EXPORT({kernel})" for kernel in kernel_names(source))
        text += f'namespace {operation} {{\n#line 1 "{operation}.cu"\n{source}\n{exports}\n}}\n'
    options = [
        *OPTIONS,
        "-O0" if once or sanitize else "-O1",
        *(SANITIZER if sanitize else ()),
        f"-I{HERE}",
        f"-DREAL={C_TYPE[dtype]}",
    ]
    name = hashlib.sha256(
        "".join([text, (HERE / "cuda_shim.h").read_text(), *options]).encode()
    ).hexdigest()[:16]
    library = Path(folder) / f"{name}.so"
    if not library.exists():
        unit, made = (
            library.with_name(f"{name}_{os.getpid()}.{kind}") for kind in ("cu", "so")
        )  # one name per process: another one may build the same library
        unit.write_text(text)
        done = subprocess.run(
            ["g++", *options, "-o", str(made), str(unit)], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"g++ refused the kernels:\n{done.stderr}")
        made.replace(library)
    return library


def load(library):
    return ctypes.CDLL(str(library))


def sanitizer_library():
    """The path of AddressSanitizer's runtime; None where g++ has none.

    A process that loads a library built with `sanitize` needs it as LD_PRELOAD.
    """
    path = Path(
        subprocess.run(
            ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True
        ).stdout.strip()
    )
    return str(path) if path.is_absolute() else None
