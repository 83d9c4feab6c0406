"""A stand-in for CuPy that is stricter than CuPy.

Code that works in CuPy by chance fails here, and every copy and wait is counted. The
module offers only what CuPy has, and nothing that CuPy computes otherwise than NumPy.
tests/test_18_stand_in.py compares its names with CuPy's.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from cuda_shim.gpu_array import Array, compute, operand, refused
from cuda_shim.memory import CUDARuntimeError, Gpu, MemoryPool, OutOfMemoryError, Stream


class Cupy:
    """The module.

    kernel  (name, dtype, grid, threads, arguments, shared): runs one of the project's
            kernels on NumPy's arrays
    """

    def __init__(self, kernel):
        self.gpu, self.ndarray, self.run_kernel = Gpu(), Array, kernel
        gpu = self.gpu
        self.cuda = SimpleNamespace(
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            MemoryPool=lambda: MemoryPool(gpu),
            using_allocator=self.using_allocator,
            Stream=lambda non_blocking=False: Stream(gpu, non_blocking),
            get_current_stream=lambda: Stream(gpu),
            alloc_pinned_memory=bytearray,
            runtime=SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: 1),
        )

    @contextmanager
    def using_allocator(self, malloc):
        before, self.gpu.pool = self.gpu.pool, malloc.__self__
        try:
            yield
        finally:
            self.gpu.pool = before

    def get_default_memory_pool(self):
        return self.gpu.default

    # ---- arrays ----------------------------------------------------------------------

    def empty(self, shape, dtype=float):
        return Array(self.gpu, *self.gpu.empty(shape, dtype))

    def full(self, shape, value, dtype):
        a = self.empty(shape, dtype)
        a.fill(value)
        return a

    def zeros(self, shape, dtype=float):
        return self.full(shape, 0, dtype)

    def ones(self, shape, dtype=float):
        return self.full(shape, 1, dtype)

    def arange(self, start, stop=None, dtype=None):
        numbers = np.arange(start, stop, dtype=dtype)
        a = self.empty(numbers.shape, numbers.dtype)
        host = a.host
        self.gpu.run(lambda: host.__setitem__(..., numbers))  # a kernel of CuPy's own
        return a

    def asarray(self, a):
        if isinstance(a, Array):
            return a
        if type(a) is not np.ndarray:
            refused(a)
        self.gpu.count("to the GPU")
        array, block = self.gpu.empty(a.shape, a.dtype)
        array[...] = a
        return Array(self.gpu, array, block)

    def array(self, a):
        return a.copy() if isinstance(a, Array) else self.asarray(a)

    def asnumpy(self, a):
        return a.get()

    def ascontiguousarray(self, a):
        return a if a.flags.c_contiguous else a.copy()

    def zeros_like(self, a):
        return self.zeros(a.shape, a.dtype)

    def broadcast_to(self, a, shape):
        return a.view_of(np.broadcast_to(a.host, shape))

    # ---- functions -------------------------------------------------------------------

    def where(self, condition, a, b):
        if all(operand(x) is x for x in (a, b)):
            raise AssertionError("where: expected an array, got two numbers of no precision")
        return compute(self.gpu, np.where, condition, a, b)

    def isfinite(self, a):
        return compute(self.gpu, np.isfinite, a)

    def exp(self, a):
        return compute(self.gpu, np.exp, a)

    def log(self, a):
        return compute(self.gpu, np.log, a)

    def log1p(self, a):
        return compute(self.gpu, np.log1p, a)

    def sqrt(self, a):
        return compute(self.gpu, np.sqrt, a)

    def abs(self, a):
        return compute(self.gpu, np.abs, a)

    def maximum(self, a, b):
        return compute(self.gpu, np.maximum, a, b)

    def sign(self, a):
        return compute(self.gpu, np.sign, a)

    def square(self, a, dtype=None):
        return compute(self.gpu, lambda a: np.square(a, dtype=dtype), a)

    def einsum(self, text, *arrays):
        self.gpu.cublas()
        return compute(self.gpu, lambda *hosts: np.einsum(text, *hosts), *arrays)

    def stack(self, arrays):
        return self.concatenate([a[None] for a in arrays])

    def concatenate(self, arrays, axis=0):
        if len(arrays) > 8:
            self.gpu.count("to the GPU")  # a table of addresses
        return compute(self.gpu, lambda *hosts: np.concatenate(hosts, axis), *arrays)

    def repeat(self, a, repeats, axis=None):
        if not isinstance(repeats, int):
            self.gpu.count("wait")  # the list is sent, and its sum decides the shape
        return compute(self.gpu, lambda host: np.repeat(host, repeats, axis), a)

    # ---- kernels ---------------------------------------------------------------------

    def RawModule(self, code, options, backend):
        dtype = {"-DREAL=float": "float32", "-DREAL=double": "float64"}[options[1]]
        return SimpleNamespace(get_function=lambda name: self.function(code, name, dtype))

    def function(self, code, name, dtype):
        if f" {name}(" not in code:
            raise CUDARuntimeError(f"CUDA_ERROR_NOT_FOUND: named symbol not found: {name}")

        def launch(grid, block, arguments, shared_mem=0):
            hosts = [
                a.host if isinstance(a, Array) else a if isinstance(a, np.generic) else refused(a)
                for a in arguments
            ]
            self.gpu.run(lambda: self.run_kernel(name, dtype, grid, block[0], hosts, shared_mem))

        return launch
