"""A stand-in for CuPy, stricter than it: what only works by chance, or at a price that nobody sees, fails here or is counted.

An array is an object of its own and no NumPy array. NumPy's functions refuse it (CuPy's would take some of them over without a word);
an operation with a NumPy array is a TypeError; looking at a number, and every copy, is counted, and refused while a stream is capturing.
The module offers only what CuPy has, and not what CuPy has but computes otherwise than NumPy. tests/test_18 holds its names against CuPy's.
"""

import operator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from cuda_shim.memory import CUDARuntimeError, Gpu, MemoryPool, OutOfMemoryError, Stream

PLAIN = (
    "sum",
    "mean",
    "all",
    "any",
    "max",
    "min",
    "argmax",
    "ravel",
    "swapaxes",
    "transpose",
)  # methods as NumPy's, a launch each


def refused(a):
    raise TypeError(f"Unsupported type {type(a)}")


class Array:
    """As cupy.ndarray. `host` is where the numbers really are; `gpu` counts and records."""

    __array_ufunc__ = None

    def __init__(self, gpu, host, block):
        self.gpu, self.host, self.block = gpu, host, block

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(
            f"numpy.{function.__name__} of an array of the GPU: use the module of the array"
        )

    shape, dtype, ndim, size, nbytes, itemsize, strides, flags = (
        property(lambda self, name=name: getattr(self.host, name))
        for name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides", "flags")
    )

    def __len__(self):
        return len(self.host)

    def __hash__(self):
        return id(self)

    # ---- new arrays ------------------------------------------------------------------------------------------------------------

    def computed(self, function, *others, **options):
        """function(self, *others) as a new array, by one launch."""
        return compute(self.gpu, function, self, *others, **options)

    def seen(self, host):
        """Another view of this memory."""
        if not np.may_share_memory(host, self.host) and host.size:
            raise AssertionError("expected a view, got a copy")
        return Array(self.gpu, host, self.block)

    def reshape(self, *shape):
        host = self.host.reshape(*shape)
        return (
            self.seen(host)
            if np.may_share_memory(host, self.host)
            else self.computed(lambda a: a.reshape(*shape))
        )

    def view(self, dtype):
        return self.seen(self.host.view(dtype))

    def __getitem__(self, where):
        parts = where if isinstance(where, tuple) else (where,)
        for part in parts:
            if isinstance(part, np.ndarray | list):
                self.gpu.count("to the GPU")
            if isinstance(part, Array) and part.dtype.kind == "b":
                self.gpu.count("wait")  # how many there are decides the shape
        if any(isinstance(part, Array | np.ndarray | list) for part in parts):
            at = indices(where)
            return self.computed(lambda a: a[at])
        host = self.host[where]
        return self.seen(host if isinstance(host, np.ndarray) else self.host[(*parts, ...)])

    def __setitem__(self, where, value):
        value = operand(value)
        if any(
            isinstance(part, np.ndarray | list)
            for part in (where if isinstance(where, tuple) else (where,))
        ):
            self.gpu.count("to the GPU")

        host, at = (
            self.host,
            indices(where),
        )  # what is recorded holds no array: it may be freed, and its memory given out again
        self.gpu.run(lambda: host.__setitem__(at, value))

    def astype(self, dtype, copy=True):
        return (
            self if not copy and self.dtype == dtype else self.computed(lambda a: a.astype(dtype))
        )

    def copy(self):
        return self.computed(np.array)

    def fill(self, value):
        self[...] = value

    def __getattr__(self, name):
        if name not in PLAIN:
            raise AttributeError(name)
        return lambda *args, **options: self.computed(lambda a: getattr(a, name)(*args, **options))

    @property
    def real(self):
        return self

    def __dlpack_device__(self):
        return 2, 0  # a GPU, the first

    # ---- to the host -----------------------------------------------------------------------------------------------------------

    def get(self):
        self.gpu.count("to the host")
        return self.host.copy()

    def set(self, host):
        if type(host) is not np.ndarray or host.dtype != self.dtype or host.shape != self.shape:
            raise TypeError(
                f"Only a numpy.ndarray of {self.dtype} and shape {self.shape} can be set"
            )
        self.gpu.count("to the GPU")
        self.host[...] = host

    def looked_at(self, kind):
        self.gpu.count("wait")
        return kind(self.host)

    def __bool__(self):
        return self.looked_at(bool)

    def __float__(self):
        return self.looked_at(float)

    def __int__(self):
        return self.looked_at(int)


def operand(a):
    """What NumPy computes with: the numbers of a GPU's array, or a number."""
    if isinstance(a, Array):
        return a.host
    return a if isinstance(a, int | float | complex | bool | np.generic) else refused(a)


def indices(where):
    return (
        tuple(p.host if isinstance(p, Array) else p for p in where)
        if isinstance(where, tuple)
        else indices((where,))
    )


def compute(gpu, function, *arrays, **options):
    """function(*arrays, **options) as a new array of the GPU."""
    if function is operator.matmul:
        gpu.cublas()
    hosts = [operand(a) for a in arrays]
    with np.errstate(all="ignore"):
        like = np.asarray(function(*hosts, **options))
    array, block = gpu.empty(like.shape, like.dtype)

    def work():
        with np.errstate(all="ignore"):
            array[...] = function(*hosts, **options)

    gpu.run(work)
    return Array(gpu, array, block)


def unary(name):
    return lambda a: compute(a.gpu, getattr(operator, name), a)


def binary(name):
    function = getattr(operator, name)
    return (lambda a, b: compute(a.gpu, function, a, b)), (
        lambda a, b: compute(a.gpu, function, b, a)
    )


def in_place(name):
    function = getattr(operator, f"i{name}")

    def method(a, b):
        host, b = a.host, operand(b)
        a.gpu.run(lambda: function(host, b))
        return a

    return method


for _name in ("add", "sub", "mul", "truediv", "pow", "and_", "or_", "matmul"):
    _dunder = _name.rstrip("_")
    setattr(Array, f"__{_dunder}__", binary(_name)[0])
    setattr(Array, f"__r{_dunder}__", binary(_name)[1])
    setattr(Array, f"__i{_dunder}__", in_place(_dunder))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Array, f"__{_name}__", binary(_name)[0])
for _name in ("neg", "abs", "invert"):
    setattr(Array, f"__{_name}__", unary(_name))


class Cupy:
    """The module. `kernel(name, dtype, grid, threads, arguments)` runs one of the project's kernels on NumPy's arrays."""

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

    # ---- arrays ----------------------------------------------------------------------------------------------------------------

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
        return a.seen(np.broadcast_to(a.host, shape))

    # ---- functions -------------------------------------------------------------------------------------------------------------

    def where(self, condition, a, b):
        if all(operand(x) is x for x in (a, b)):
            raise AssertionError("where of two numbers: which precision is meant is not said")
        return compute(self.gpu, np.where, condition, a, b)

    def isfinite(self, a):
        return compute(self.gpu, np.isfinite, a)

    def sqrt(self, a):
        return compute(self.gpu, np.sqrt, a)

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
            self.gpu.count(
                "wait"
            )  # the list goes over, and how many there are in all decides the shape
        return compute(self.gpu, lambda host: np.repeat(host, repeats, axis), a)

    # ---- kernels ---------------------------------------------------------------------------------------------------------------

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
