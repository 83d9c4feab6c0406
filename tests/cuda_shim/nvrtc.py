"""CUDA texts compiled for real GPUs by NVRTC: the resources of each kernel.

NVRTC is a library of the package nvidia-cuda-nvrtc. It needs no GPU and no driver, and
is called by ctypes.
"""

import ctypes
import re
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import NamedTuple

PACKAGE = "nvidia-cuda-nvrtc"
REASON = (
    f"{PACKAGE} is not installed, which compiles the CUDA kernels for every GPU: "
    "pip install 'refmaml[test]', where the package exists for the platform"
)


class Resources(NamedTuple):
    """The resources of one kernel.

    registers of a thread, bytes of its stack, bytes spilled, bytes of a block's shared
    memory
    """

    registers: int
    stack: int
    spilled: int
    shared: int


def library():
    """The path of NVRTC; None where it is not installed."""
    try:
        found = [f for f in files(PACKAGE) or () if re.fullmatch(r"libnvrtc\.so\.\d+", f.name)]
    except PackageNotFoundError:
        return None
    return str(found[0].locate()) if found else None


class Compiler:
    """Compiles a text for an architecture such as "sm_90", and "float" or "double".

    compile gives {kernel: Resources}, cubin the machine code in bytes. Both raise
    RuntimeError with the compiler's log where it refuses the text.
    """

    def __init__(self, path):
        # NVRTC loads it by name and does not search its own folder.
        for part in Path(path).parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(part))
        self.nvrtc = ctypes.CDLL(path)
        self.nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p

    def version(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def compile(self, text, arch, real):
        return resources(self.compiled(text, arch, real)[0])

    def cubin(self, text, arch, real):
        return self.compiled(text, arch, real)[1]

    def compiled(self, text, arch, real):
        """(the compiler's log, the machine code)."""
        options = [
            f"--gpu-architecture={arch}",
            "--std=c++17",
            f"-DREAL={real}",
            "-ftz=true",
            "--ptxas-options=-v",
        ]  # ftz: as CuPy does
        program = ctypes.c_void_p()
        self.nvrtc.nvrtcCreateProgram(
            ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None
        )
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = self.nvrtc.nvrtcCompileProgram(program, len(options), given)
        log, cubin = (
            self.part(program, "ProgramLog").rstrip(b"\0").decode(),
            b"" if status else self.part(program, "CUBIN"),
        )
        self.nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        if status:
            raise RuntimeError(f"{self.nvrtc.nvrtcGetErrorString(status).decode()}: {log}")
        return log, cubin

    def part(self, program, name):
        """A part of a compiled program: its log or its machine code, bytes."""
        size = ctypes.c_size_t()
        getattr(self.nvrtc, f"nvrtcGet{name}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.nvrtc, f"nvrtcGet{name}")(program, text)
        return text.raw


def resources(log):
    """{kernel: Resources} from the output of ptxas -v."""
    found = {}
    for kernel, words in re.findall(
        r"Compiling entry function '(\w+)' for '\w+'(.*?)(?=Compiling entry function|\Z)", log, re.S
    ):

        def number(pattern, words=words):
            match = re.search(pattern, words)
            return int(match[1]) if match else 0

        spilled = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
        found[kernel] = Resources(
            number(r"Used (\d+) registers"),
            number(r"(\d+) bytes stack frame"),
            spilled,
            number(r"(\d+) bytes smem"),
        )
    return found
