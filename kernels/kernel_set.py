"""A kernel set: the kernels of one implementation, and the module of their arrays.

A kernel set is passed as an argument. No global variable chooses one.
"""

from importlib import import_module
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
        parts = name, dict(functions), xp, empty, whole_net, self.missing_kernels
        self.recipe = new, (type(self), *parts), {}
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
        """A copy with some kernels exchanged, for other implementations or planted
        errors.

        It has no whole_net, as a whole-net kernel would not call the exchanged kernels.
        """
        unknown = sorted(set(functions) - set(self.functions))
        if unknown:
            raise AttributeError(
                f"kernel set {self.name!r} has no kernel {unknown[0]!r} to replace"
            )
        exchanged = type(self)(
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
        """An array filled with one number, to be read only.

        It is filled once, because on a GPU each fill is a launch.
        """
        key = "constant", shape, value, np.dtype(dtype)
        return self.cached(key, lambda: self.xp.full(shape, value, dtype))

    # ---- arrays: a subclass for a GPU overrides these --------------------------------

    on_device = False  # whether the arrays are elsewhere than NumPy's
    out_of_memory: tuple = ()  # the exceptions of an allocation that finds no memory there

    def concatenate(self, arrays, axis=0):
        """The concatenation."""
        return np.concatenate(arrays, axis)

    def sum_segments(self, a, starts):
        """Sums of the consecutive column segments of a (T, P), (T, L).

        The segments begin at `starts`.
        """
        return np.add.reduceat(a, starts, axis=1)

    def arrays(self, *arrays):
        """NumPy arrays as arrays of the kernels."""
        return self.to_device(*arrays)

    def to_device(self, *arrays):
        """The arrays as arrays of the kernels."""
        return arrays

    def to_host(self, a):
        """An array as NumPy's."""
        return a

    def to_host_batched(self, arrays):
        """A list of small arrays as NumPy's."""
        return list(arrays)

    def match_input(self, a, like):
        """`a` as NumPy's if `like` is: a result has the kind of its arguments."""
        return self.to_host(a) if isinstance(like, np.ndarray) else a

    def free(self):
        """Return idle memory."""


def new(kind, name, functions, xp, empty, whole_net, missing):
    """A KernelSet, or a set of a subclass, from all that it consists of."""
    return kind(name, functions, xp, empty, whole_net, missing)


def make_again(factory, args, options):
    """The kernel set of a recipe; modules are given by their ModuleName."""
    return factory(*map(imported, args), **{name: imported(a) for name, a in options.items()})


class ModuleName(str):
    """The name of a module, which itself cannot be pickled."""


def by_module_name(a):
    return ModuleName(a.__name__) if isinstance(a, ModuleType) else a


def imported(a):
    return import_module(a) if isinstance(a, ModuleName) else a
