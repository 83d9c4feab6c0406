"""Arrays of the stand-in for CuPy.

An Array is no NumPy array. NumPy's functions refuse it, where they would convert some
of CuPy's. An operation with a NumPy array is a TypeError. Each read of a number and
each copy is counted, and refused while a stream is capturing.
"""

import operator

import numpy as np

# Methods that are NumPy's; each is one launch.
NUMPY_METHODS = (
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
)


def refused(a):
    raise TypeError(f"Unsupported type {type(a)}")


class Array:
    """As cupy.ndarray. `host` holds the numbers; `gpu` counts and records."""

    __array_ufunc__ = None

    def __init__(self, gpu, host, block):
        self.gpu, self.host, self.block = gpu, host, block

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
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

    # ---- new arrays ------------------------------------------------------------------

    def computed(self, function, *others, **options):
        """function(self, *others) as a new array: one launch."""
        return compute(self.gpu, function, self, *others, **options)

    def view_of(self, host):
        """Another view of this memory."""
        if not np.may_share_memory(host, self.host) and host.size:
            raise AssertionError("expected a view, got a copy")
        return Array(self.gpu, host, self.block)

    def reshape(self, *shape):
        host = self.host.reshape(*shape)
        return (
            self.view_of(host)
            if np.may_share_memory(host, self.host)
            else self.computed(lambda a: a.reshape(*shape))
        )

    def view(self, dtype):
        return self.view_of(self.host.view(dtype))

    def __getitem__(self, where):
        parts = where if isinstance(where, tuple) else (where,)
        for part in parts:
            if isinstance(part, np.ndarray | list):
                self.gpu.count("to the GPU")
            if isinstance(part, Array) and part.dtype.kind == "b":
                self.gpu.count("wait")  # their number decides the shape
        if any(isinstance(part, Array | np.ndarray | list) for part in parts):
            at = indices(where)
            return self.computed(lambda a: a[at])
        host = self.host[where]
        return self.view_of(host if isinstance(host, np.ndarray) else self.host[(*parts, ...)])

    def __setitem__(self, where, value):
        value = operand(value)
        parts = where if isinstance(where, tuple) else (where,)
        if any(isinstance(part, np.ndarray | list) for part in parts):
            self.gpu.count("to the GPU")
        # A recorded launch keeps no Array alive: its memory may be freed and used
        # again.
        host, at = self.host, indices(where)
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
        if name not in NUMPY_METHODS:
            raise AttributeError(name)
        return lambda *args, **options: self.computed(lambda a: getattr(a, name)(*args, **options))

    @property
    def real(self):
        return self

    def __dlpack_device__(self):
        return 2, 0  # a GPU, the first

    # ---- to the host -----------------------------------------------------------------

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

    def read_as(self, kind):
        """One number of the GPU, for which the host waits."""
        self.gpu.count("wait")
        return kind(self.host)

    def __bool__(self):
        return self.read_as(bool)

    def __float__(self):
        return self.read_as(float)

    def __int__(self):
        return self.read_as(int)


def operand(a):
    """An operand for NumPy: the numbers of an Array, or a number."""
    if isinstance(a, Array):
        return a.host
    return a if isinstance(a, int | float | complex | bool | np.generic) else refused(a)


def indices(where):
    """An index with NumPy's arrays in place of Arrays."""
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


for _name in ("add", "sub", "mul", "truediv", "pow", "and_", "or_", "xor", "rshift", "matmul"):
    _dunder = _name.rstrip("_")
    setattr(Array, f"__{_dunder}__", binary(_name)[0])
    setattr(Array, f"__r{_dunder}__", binary(_name)[1])
    setattr(Array, f"__i{_dunder}__", in_place(_dunder))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Array, f"__{_name}__", binary(_name)[0])
for _name in ("neg", "abs", "invert"):
    setattr(Array, f"__{_name}__", unary(_name))
