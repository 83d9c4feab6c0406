"""A kernel set: the functions of one implementation under one roof, passed as an argument and never chosen by a global."""

from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate
from types import MappingProxyType

import numpy as np

from refmaml.kernels.cuda_runtime.transfer import Numbers, send

OPERATIONS = (
    "conv2d",
    "linear",
    "bias",
    "batch_norm",
    "activation",
    "pooling",
    "film",
    "cross_entropy",
    "squared_error",
    "vector",
)
FUSED = (
    "norm_act_pool",
)  # several of these at once, for kernel sets that gain by it; refmaml/execution/fusion.py says where a net has them


class KernelSet:
    """Kernels by name: `kernels.conv2d_forward(y, x, w, stride, padding)`.

    name       what it is called in tables and error messages
    functions  {kernel name: function}
    xp         the module that allocates its arrays (numpy or cupy)
    empty      (shape, dtype) -> an uninitialised array for a kernel to fill, in the order of memory the kernels like best
    chain      (operations, loss) -> a whole chain as one kernel, or None where it must go kernel by kernel; None if the set has none
    """

    def __init__(self, name, functions, xp=np, empty=None, chain=None):
        self.name, self.xp, self.empty, self.chain = name, xp, empty or xp.empty, chain
        self.functions, self.known = MappingProxyType(dict(functions)), {}
        self.on_device = (
            xp is not np
        )  # whether arrays are elsewhere than NumPy's, so that looking at one is a wait
        self.out_of_memory = xp.cuda.memory.OutOfMemoryError if self.on_device else ()

    def __getattr__(self, kernel):
        try:
            return self.__dict__["functions"][kernel]
        except KeyError:
            raise AttributeError(
                f"kernel set {self.__dict__.get('name')!r} has no kernel {kernel!r}"
            ) from None

    def __repr__(self):
        return f"KernelSet({self.name!r}, {len(self.functions)} kernels)"

    def replace(self, name=None, **functions):
        """A copy with some kernels exchanged: how another implementation, or a planted error, is tried out. It goes kernel by kernel."""
        unknown = sorted(set(functions) - set(self.functions))
        if unknown:
            raise AttributeError(
                f"kernel set {self.name!r} has no kernel {unknown[0]!r} to replace"
            )
        return KernelSet(name or self.name, {**self.functions, **functions}, self.xp, self.empty)

    # ---- between the host and where the kernels compute; nothing to do where that is the same --------------------------------------

    def to_device(self, *arrays):
        """The arrays where the kernels compute: NumPy's go over together, in one copy."""
        if not self.on_device:
            return arrays
        here = [a for a in arrays if isinstance(a, np.ndarray)]
        sent = iter(send(self.xp, here) if here else ())
        return tuple(next(sent) if isinstance(a, np.ndarray) else a for a in arrays)

    def to_host(self, a):
        """An array as NumPy's."""
        return self.xp.asnumpy(a) if self.on_device else a

    def match_input(self, a, like):
        """`a` as NumPy's where `like` is: what a function was given decides what it returns."""
        return self.to_host(a) if isinstance(like, np.ndarray) else a

    def to_host_batched(self, arrays):
        """A list of small arrays as NumPy's, which some may be already: from a GPU in one copy, with one wait."""
        away = [a for a in arrays if self.on_device and not isinstance(a, np.ndarray | np.generic)]
        fetched = iter(Numbers(self.xp, away).fetch() if away else ())
        return [
            next(fetched) if self.on_device and not isinstance(a, np.ndarray | np.generic) else a
            for a in arrays
        ]

    def concatenate(self, arrays, axis=0):
        """The concatenation. CuPy's sends a table of addresses to the GPU where there are more than eight arrays; this sends nothing."""
        if not self.on_device:
            return np.concatenate(arrays, axis)
        shape, ends = list(arrays[0].shape), [0, *accumulate(a.shape[axis] for a in arrays)]
        shape[axis] = ends[-1]
        out = self.xp.empty(tuple(shape), np.result_type(*(a.dtype for a in arrays)))
        for start, end, a in zip(ends[:-1], ends[1:], arrays, strict=True):
            out[(slice(None),) * axis + (slice(start, end),)] = a
        return out

    def cached(self, key, make):
        """What make() returns, to be read only: made once for each key."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def constant(self, shape, value, dtype):
        """An array full of one number, made once: making it takes a launch like any other."""
        return self.cached(
            ("full", shape, value, np.dtype(dtype)), lambda: self.xp.full(shape, value, dtype)
        )

    def free(self):
        """Give memory that lies idle back to the GPU."""
        if self.on_device:
            self.xp.get_default_memory_pool().free_all_blocks()


def collect(implementation, operations=OPERATIONS):
    """{name: function} of every public kernel in `kernels/*/<implementation>.py`."""
    functions = {}
    for operation in operations:
        module = import_module(f"refmaml.kernels.{operation}.{implementation}")
        functions.update({name: getattr(module, name) for name in module.__all__})
    return functions


def reference(xp=np):
    """The reference kernels: array expressions for any strides and any float or complex dtype.

    They are analytic (branches look at real parts only; no abs, conj or maximum), so that a complex step runs through.
    """
    return KernelSet("reference", collect("reference"), xp)


def cpu(threads=None):
    """The Numba kernels, float32 and float64: on so many threads (None: as many as Numba was set to). The bits do not depend on it.

    Images are kept channels last in memory, whatever their shape says. Raises ImportError without Numba or SciPy.
    """
    if not importable("numba") or not importable("scipy"):
        raise ImportError(
            "the cpu kernels need numba and scipy: pip install numba scipy, or take refmaml.kernels.reference()"
        )
    from refmaml.kernels.numba_runtime.compilation import require_compiler
    from refmaml.kernels.numba_runtime.layouts import channels_last_in
    from refmaml.kernels.numba_runtime.memory import Memory
    from refmaml.kernels.numba_runtime.threads import on_threads

    require_compiler()
    from refmaml.kernels.whole_net.whole_net import whole_net

    memory = Memory()
    functions = collect("cpu")
    if threads is not None:
        functions = {name: on_threads(kernel, threads) for name, kernel in functions.items()}
    return KernelSet(
        "cpu",
        functions,
        empty=channels_last_in(memory),
        chain=partial(whole_net, memory=memory, threads=threads),
    )


def cuda(device=None, version=3, xp=None):
    """The CUDA C++ kernels, float32 and float64, on the current GPU. The same bits at every run.

    device   what runs the launches, if it is not CuPy (launcher.py says what it has to offer)
    version  of the convolutions and matrix products: 1, a thread for each result; 2, in tiles; 3, in tiles fetched ahead
    xp       whose arrays a net computes with; None: the device's own, CuPy's, which stay on the GPU. numpy: its arrays are taken there and
             back at each launch, which is right but slow: for looking at one kernel

    Raises ImportError without CuPy; RuntimeError without a GPU, or where its driver, CuPy and NVRTC do not fit each other: in one line.
    """
    from refmaml.kernels.cuda_runtime.launcher import CupyDevice, Launcher

    launch = Launcher(device or CupyDevice(), version)
    functions, xp = (
        {
            name: partial(kernel, launch)
            for name, kernel in collect("cuda", OPERATIONS + FUSED).items()
        },
        xp or launch.xp,
    )
    return KernelSet("cuda", functions, xp, launch.empty if xp is launch.xp else xp.empty)


def numba_cuda():
    """The plain kernels in Numba CUDA, to read and to teach with, on a GPU or (with NUMBA_ENABLE_CUDASIM=1) on Numba's simulator.

    They take CuPy's arrays and NumPy's, which are copied there and back. Raises ImportError without Numba and RuntimeError without a GPU.
    """
    if not importable("numba"):
        raise ImportError(
            "the numba_cuda kernels need numba: pip install numba, or take refmaml.kernels.reference()"
        )
    from numba import cuda as target

    if not target.is_available():
        raise RuntimeError(
            "the numba_cuda kernels: expected a GPU, got none; NUMBA_ENABLE_CUDASIM=1 runs them on Numba's simulator"
        )
    return KernelSet("numba_cuda", collect("numba_cuda", OPERATIONS + FUSED))


def auto():
    """The fastest kernels for NumPy arrays on this machine: `cpu()` where Numba is installed, else `reference()`."""
    return cpu() if importable("numba") and importable("scipy") else reference()


def importable(module):
    return find_spec(module) is not None
