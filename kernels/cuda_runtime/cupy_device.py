"""The current GPU through CuPy; one-line errors where the GPU cannot be used."""

import numpy as np

from refmaml.kernels.cuda_runtime.launcher import Launcher
from refmaml.kernels.cuda_runtime.source import PRECISIONS, source


class CupyDevice:
    """The current GPU as a Launcher needs it.

    A file is compiled when one of its kernels is first called, once for each precision.
    The package contains source and no cubins, as CuPy caches those on disk for any GPU
    and driver. Raises ImportError or RuntimeError, in one line, where the GPU cannot be
    used.
    """

    def __init__(self):
        self.xp = cupy_with_gpu()
        self.kernels = {}
        self.check()

    def check(self):
        """Compile and launch one small kernel, so that a misfit shows before any work.

        Raises RuntimeError in one line.
        """
        try:
            out, b = self.xp.empty((1, 1), np.float32), self.xp.full((1, 1), 3, np.float32)
            Launcher(self).elements("vector", "vector_scale", [out], [b, b], 1)
            product = float(out[0, 0])
        except Exception as error:  # CuPy, the driver and NVRTC have exceptions of their own
            raise unusable(error) from None
        if product != 9:
            raise RuntimeError(
                f"the cuda kernels: expected 3 * 3 = 9 from the GPU, got {product}; {WAY_OUT}"
            )

    def empty(self, shape, dtype):
        return self.xp.empty(shape, dtype)

    def launch(self, operation, kernel, dtype, grid, threads, arguments, shared):
        run = self.kernel(operation, kernel, dtype)
        run(grid, (threads, 1, 1), tuple(arguments), shared_mem=shared)

    def kernel(self, operation, kernel, dtype):
        """The compiled kernel."""
        if (kernel, dtype) not in self.kernels:
            if (operation, dtype) not in self.kernels:
                self.kernels[operation, dtype] = self.xp.RawModule(
                    code=source(operation),
                    options=("--std=c++17", f"-DREAL={PRECISIONS[dtype]}"),
                    backend="nvrtc",
                )
            self.kernels[kernel, dtype] = self.kernels[operation, dtype].get_function(kernel)
        return self.kernels[kernel, dtype]


WAY_OUT = "take refmaml.kernels.cpu()"
NEWER_DRIVER = "a newer driver, or pip install 'refmaml[cuda12]' in place of [cuda13]"
# {words in CuPy's message: what to do}; the first that match count.
REMEDIES = {
    "InsufficientDriver": "a newer driver, or the CuPy for this one: "
    "pip install 'refmaml[cuda12]' in place of [cuda13]",
    "UNSUPPORTED_PTX_VERSION": f"NVRTC is newer than the driver: {NEWER_DRIVER}",
    "UnsupportedPtxVersion": f"NVRTC is newer than the driver: {NEWER_DRIVER}",
    "nvrtc": "NVRTC compiles the kernels: pip install 'cupy-cuda13x[ctk]' "
    "(or 'cupy-cuda12x[ctk]') brings it",
    "NO_BINARY_FOR_GPU": "this CuPy or NVRTC does not know the GPU",
    "NoKernelImageForDevice": "this CuPy or NVRTC does not know the GPU",
    "out of memory": "something else holds the GPU's memory",
}


def first_line(error):
    """The first line of an exception's text, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def unusable(error):
    """The RuntimeError, one line, for an exception of CuPy, the driver or NVRTC."""
    line = first_line(error)
    remedy = next(
        (text + ", or " for words, text in REMEDIES.items() if words.lower() in line.lower()), ""
    )
    return RuntimeError(f"the cuda kernels: expected a GPU, got {line}; {remedy}{WAY_OUT}")


def cupy_with_gpu():
    """The module cupy, where it finds a GPU.

    Raises ImportError without cupy, RuntimeError without a GPU: one line each.
    """
    try:
        import cupy
    except ModuleNotFoundError:
        raise ImportError(
            "the cuda kernels need cupy: pip install 'refmaml[cuda13]' (driver 580 or newer) "
            f"or 'refmaml[cuda12]', or {WAY_OUT}"
        ) from None
    except ImportError as error:
        raise ImportError(
            f"the cuda kernels need a cupy that can be imported, got {first_line(error)}; {WAY_OUT}"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise unusable(error) from None
    if count == 0:
        raise RuntimeError(f"the cuda kernels: expected a GPU, got none; {WAY_OUT}")
    return cupy
