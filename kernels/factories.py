"""The kernel sets that this machine can run, and how each is made."""

from functools import partial
from importlib.util import find_spec

import numpy as np

from refmaml.kernels import reference_set
from refmaml.kernels.discovery import collect, fusions
from refmaml.kernels.kernel_set import KernelSet

NAMES = ("auto", "cpu", "cuda", "numba_cuda", "reference")


def by_name(kernels):
    """A kernel set by its name, one of NAMES; a kernel set is returned as it is.

    Raises ValueError for anything else; ImportError or RuntimeError, in one line, where
    this machine cannot run the kernels.
    """
    if isinstance(kernels, KernelSet):
        return kernels
    if not isinstance(kernels, str) or kernels not in NAMES:
        raise ValueError(
            f"kernels: expected a kernel set or one of {', '.join(NAMES)}, got {kernels!r}"
        )
    return globals()[kernels]()


def auto():
    """The fastest kernels for NumPy arrays: `cpu()`, or `reference()` without Numba."""
    return cpu() if importable("numba") and importable("scipy") else reference()


def reference(xp=np):
    """The reference kernels: array expressions, any strides, float or complex dtypes.

    They are analytic (branches look at real parts only; no abs, conj or maximum), so
    that a complex step runs through them. xp is the array module, NumPy or CuPy.
    """
    if xp is np:
        return reference_set.reference()
    from refmaml.kernels.cuda_runtime.device_kernel_set import DeviceKernelSet

    functions, _ = collect("reference")
    return DeviceKernelSet("reference", functions, xp).made_by(reference, xp)


def cpu(threads=None):
    """The Numba kernels for CPUs, float32 and float64.

    Images are channels last in memory.

    threads  number of threads, on which the bits do not depend; None: as many as Numba
             is set to

    An operation without cpu.py is computed by its reference kernels; `missing` names
    it. Raises ImportError without Numba or SciPy.
    """
    if not importable("numba") or not importable("scipy"):
        raise ImportError(
            "the cpu kernels need numba and scipy: pip install numba scipy, "
            "or take refmaml.kernels.reference()"
        )
    from refmaml.kernels.numba_runtime.compilation import require_compiler
    from refmaml.kernels.numba_runtime.layouts import channels_last_in
    from refmaml.kernels.numba_runtime.memory import Memory
    from refmaml.kernels.numba_runtime.threads import on_threads

    require_compiler()
    from refmaml.kernels.whole_net import whole_net as compiled_net

    memory, (functions, missing) = Memory(), collect("cpu")
    functions |= collect("reference", missing)[0]
    if threads is not None:
        functions = {name: on_threads(kernel, threads) for name, kernel in functions.items()}
    whole_net = partial(compiled_net.whole_net, memory=memory, threads=threads)
    kernels = KernelSet(
        "cpu", functions, empty=channels_last_in(memory), whole_net=whole_net, missing=missing
    )
    return kernels.made_by(cpu, threads)


def cuda(device=None, version=3, xp=None):
    """The CUDA C++ kernels on the current GPU, float32 and float64.

    Every run gives the same bits.

    device   runs the launches, see launcher.py; None: CuPy
    version  of convolutions and matrix products: 1, one thread for each result; 2,
             tiles in shared memory; 3, larger tiles that are prefetched
    xp       the module whose arrays a net computes with; None: the device's own, which
             stay on the GPU. With numpy every launch copies its arrays to the GPU and
             back: slow, for the test of single kernels

    A kernel of an operation without cuda.py raises MissingKernelError when it is looked
    up. Raises ImportError without CuPy; RuntimeError without a GPU, or where the
    driver, CuPy and NVRTC do not fit each other: in one line.
    """
    from refmaml.kernels.cuda_runtime.cupy_device import CupyDevice
    from refmaml.kernels.cuda_runtime.device_kernel_set import DeviceKernelSet
    from refmaml.kernels.cuda_runtime.launcher import Launcher

    launch = Launcher(device or CupyDevice(), version)
    kernels, missing = collect("cuda")
    kernels |= collect("cuda", fusions())[0]
    functions = {name: partial(kernel, launch) for name, kernel in kernels.items()}
    module = xp or launch.xp
    empty = launch.empty if module is launch.xp else module.empty
    kind = KernelSet if module is np else DeviceKernelSet
    made = kind("cuda", functions, module, empty, missing=missing)
    return made.made_by(cuda, device, version, xp)


def numba_cuda():
    """The kernels in Numba CUDA, for reading and teaching.

    They run on a GPU or, with NUMBA_ENABLE_CUDASIM=1, on Numba's simulator. They take
    CuPy's arrays, and NumPy's, which are copied to the GPU and back. A kernel of an
    operation without numba_cuda.py raises MissingKernelError when it is looked up.
    Raises ImportError without Numba and RuntimeError without a GPU.
    """
    if not importable("numba"):
        raise ImportError(
            "the numba_cuda kernels need numba: pip install numba, "
            "or take refmaml.kernels.reference()"
        )
    from numba import cuda as target

    if not target.is_available():
        raise RuntimeError(
            "the numba_cuda kernels: expected a GPU, got none; "
            "NUMBA_ENABLE_CUDASIM=1 runs them on Numba's simulator"
        )
    functions, missing = collect("numba_cuda")
    functions |= collect("numba_cuda", fusions())[0]
    return KernelSet("numba_cuda", functions, missing=missing).made_by(numba_cuda)


def importable(module):
    """Whether Python finds a module, which is not imported."""
    return find_spec(module) is not None
