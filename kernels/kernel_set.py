"""A kernel set: the kernels of one implementation, and arrays for them.

A kernel set is passed as an argument. No global variable chooses one.
"""

from importlib import import_module
from itertools import accumulate
from types import MappingProxyType, ModuleType

import numpy as np


class MissingKernelError(AttributeError):
    """A kernel that this kernel set lacks, of an operation that other sets have."""


class KernelSet:
    """Kernels by name: `kernels.conv2d_forward(y, x, w, stride, padding)`.

    name       the name of the set in tables and error messages
    functions  {kernel: function}
    xp         the module that allocates its arrays (numpy or cupy)
    empty      (shape, dtype) -> an uninitialised array for a kernel to fill, in the
               memory layout that the kernels prefer; None: xp.empty
    whole_net  (operations, loss) -> a whole net as one kernel, or None where it has to
               run kernel by kernel; None if the set has no such kernel
    missing    {operation: its kernels} that the implementation lacks. Those that are
               not among `functions` raise MissingKernelError when they are looked up.

    A set never changes; it only caches. So a copy is the set itself. A pickled set is
    made again where it is loaded, from its factory and arguments or from functions by
    their names; functions without an importable name, such as lambdas, cannot be
    pickled.
    """

    def __init__(self, name, functions, xp=np, empty=None, whole_net=None, missing=()):
        self.name, self.xp, self.empty, self.whole_net = name, xp, empty or xp.empty, whole_net
        self.functions = MappingProxyType(dict(functions))
        self.missing, self.missing_kernels = tuple(missing), dict(missing)
        self.recipe = new, (name, dict(functions), xp, empty, whole_net, self.missing_kernels), {}
        self.known = {}

    def __getattr__(self, kernel):
        fields = self.__dict__
        try:
            return fields["functions"][kernel]
        except KeyError:
            pass
        for operation, kernels in fields.get("missing_kernels", {}).items():
            if kernel in kernels:
                raise MissingKernelError(
                    f"kernels: expected a set with the kernel {kernel}, got {fields['name']!r}, "
                    f"which lacks the operation {operation}; take refmaml.kernels.cpu()"
                )
        raise AttributeError(f"kernel set {fields.get('name')!r} has no kernel {kernel!r}")

    def __repr__(self):
        return f"KernelSet({self.name!r}, {len(self.functions)} kernels)"

    def replace(self, name=None, **functions):
        """A copy with other functions for some kernels, such as a planted error.

        The copy has no whole_net, as a whole-net kernel would not call the exchanged
        kernels.
        """
        unknown = sorted(set(functions) - set(self.functions))
        if unknown:
            raise AttributeError(
                f"kernel set {self.name!r} has no kernel {unknown[0]!r} to replace"
            )
        exchanged = KernelSet(
            name or self.name,
            {**self.functions, **functions},
            self.xp,
            self.empty,
            missing=self.missing_kernels,
        )
        return exchanged.made_by(KernelSet.replace, self, name, **functions)

    # ---- copies: nothing but caches ever changes, so a set may be shared -------------

    def made_by(self, factory, *args, **options):
        """This set, which is pickled as factory(*args, **options)."""
        self.recipe = factory, args, options
        return self

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        factory, args, options = self.recipe
        return make_again, (
            factory,
            [by_module_name(a) for a in args],
            {name: by_module_name(a) for name, a in options.items()},
        )

    # ---- new arrays ------------------------------------------------------------------

    def zeros(self, shape, dtype):
        """An array of zeros, in the memory layout that the kernels prefer."""
        a = self.empty(shape, dtype)
        a[...] = 0
        return a

    def cached(self, key, make):
        """The result of make(), to be read only: computed once for each key."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]

    def constant(self, shape, value, dtype):
        """An array filled with one number, to be read only; filled once."""
        key = "constant", shape, value, np.dtype(dtype)
        return self.cached(key, lambda: self.xp.full(shape, value, dtype))

    # ---- array functions that CuPy computes less well than NumPy ---------------------

    def concatenate(self, arrays, axis=0):
        """The concatenation.

        CuPy's own sends a table of addresses to the GPU where there are more than eight
        arrays; this sends nothing.
        """
        if not self.on_device:
            return np.concatenate(arrays, axis)
        shape, ends = list(arrays[0].shape), [0, *accumulate(a.shape[axis] for a in arrays)]
        shape[axis] = ends[-1]
        out = self.xp.empty(tuple(shape), np.result_type(*(a.dtype for a in arrays)))
        for start, end, a in zip(ends[:-1], ends[1:], arrays, strict=True):
            out[(slice(None),) * axis + (slice(start, end),)] = a
        return out

    def sum_segments(self, a, starts):
        """Sums (T, L) of the column segments of a (T, P) that begin at `starts`.

        CuPy's reduceat takes differences of running sums, in which digits cancel.
        """
        if not self.on_device:
            return np.add.reduceat(a, starts, axis=1)
        sums = self.xp.empty((len(a), len(starts)), a.dtype)
        for l, (start, end) in enumerate(zip(starts, [*starts[1:], a.shape[1]], strict=True)):
            sums[:, l] = a[:, start:end].sum(axis=1)
        return sums

    # ---- between the host and the device; on a CPU there is nothing to do ------------

    @property
    def on_device(self):
        """Whether the arrays are on a GPU, so that the host waits to read a number."""
        return self.xp is not np

    @property
    def out_of_memory(self):
        """The exception, or exceptions, that an allocation on the device may raise."""
        return self.xp.cuda.memory.OutOfMemoryError if self.on_device else ()

    def to_device(self, *arrays):
        """The arrays as arrays of the kernels: all of NumPy's are sent in one copy."""
        if not self.on_device:
            return arrays
        from refmaml.kernels.cuda_runtime.transfer import send

        on_host = [a for a in arrays if isinstance(a, np.ndarray)]
        sent = iter(send(self.xp, on_host) if on_host else ())
        return tuple(next(sent) if isinstance(a, np.ndarray) else a for a in arrays)

    def arrays(self, *arrays):
        """NumPy arrays as arrays of the kernels; the same as `to_device`."""
        return self.to_device(*arrays)

    def to_host(self, a):
        """An array as NumPy's."""
        return self.xp.asnumpy(a) if self.on_device else a

    def to_host_batched(self, arrays):
        """A list of small arrays as NumPy's: from a GPU in one copy, with one wait."""
        from refmaml.kernels.cuda_runtime.transfer import Numbers

        on_host = [not self.on_device or isinstance(a, np.ndarray | np.generic) for a in arrays]
        away = [a for a, host in zip(arrays, on_host, strict=True) if not host]
        fetched = iter(Numbers(self.xp, away).fetch() if away else ())
        return [a if host else next(fetched) for a, host in zip(arrays, on_host, strict=True)]

    def match_input(self, a, like):
        """`a` as NumPy's if `like` is: results are of the kind of the arguments."""
        return self.to_host(a) if isinstance(like, np.ndarray) else a

    def free(self):
        """Return idle memory to the GPU."""
        if self.on_device:
            self.xp.get_default_memory_pool().free_all_blocks()


def new(name, functions, xp, empty, whole_net, missing):
    """A KernelSet from all that it consists of."""
    return KernelSet(name, functions, xp, empty, whole_net, missing)


def make_again(factory, args, options):
    """The kernel set of a recipe; modules are given by their ModuleName."""
    return factory(*map(imported, args), **{name: imported(a) for name, a in options.items()})


class ModuleName(str):
    """The name of a module, which itself cannot be pickled."""


def by_module_name(a):
    return ModuleName(a.__name__) if isinstance(a, ModuleType) else a


def imported(a):
    return import_module(a) if isinstance(a, ModuleName) else a
