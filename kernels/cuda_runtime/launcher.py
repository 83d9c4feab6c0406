"""What every `cuda.py` shares: how arrays are passed to a CUDA kernel, and its grid.

A kernel sees each array as an address and a step. The numbers of one task are
contiguous, in the order of the array's axes; the tasks are `step` numbers apart (0
where all tasks share them). So a gradient can be written into columns of a matrix (T,
P) without a copy. Arrays in any other order are copied; NumPy's are copied to the GPU
and back. blockIdx.z is the task. The arguments of a kernel are its outputs, its inputs,
its numbers.

A device runs the launches: CupyDevice (cupy_device.py) on a GPU; tests use others. It
has

    xp                      the module of its arrays
    empty(shape, dtype)     an uninitialised array
    launch(operation, kernel, dtype, grid, threads, arguments, shared)
                            arguments: arrays and NumPy scalars, in the kernel's order;
                            shared: bytes of dynamic shared memory of a block
"""

from math import prod

import numpy as np

from refmaml.kernels.cuda_runtime.source import PRECISIONS

THREADS = 256  # of a block in which each thread computes one result
TEAM = 128  # of a block that computes one sum together: a power of two
TILE = 64  # rows and columns of a block's tile of a product (TILE in common.cu)
LANES = 64  # threads of a block of a product, from version 3 on
# {blocks of one task: terms that each must have}. Where a product has few tiles, its
# terms are divided among several blocks. 16 blocks for each of some thirty tasks are 4
# for each of the 132 SMs of an H200, each of which has room for 6: that is worth it for
# short sums. A partial sum is written and read once more, which takes an estimated 40
# terms; so only long sums are divided further, to keep SMs busy at the end or with few
# tasks. Nothing here depends on the number of tasks or on the GPU, so the bits of a
# task depend on neither.
TERMS_FOR_BLOCKS = {16: 64, 36: 512, 144: 2048}
MAX_TASKS = 65535  # blocks along z
VERSIONS = (1, 2, 3)  # of the matrix products
# Numbers of one task. Kernels count in int and step past the end by less than the
# grid's blocks of threads, so the largest ints are left free.
MAX_NUMBERS = 2**31 - 2**16


def blocks_of(count, threads):
    """How many blocks of so many threads `count` results take; at least one."""
    return max(1, -(-count // threads))


def parts_of(tiles, depth):
    """Among how many blocks each tile's sums of `depth` terms are divided."""
    wanted = TERMS_FOR_BLOCKS.items()
    return max(1, *(min(blocks_of(blocks, tiles), depth // terms) for blocks, terms in wanted))


class Launcher:
    """Launches on one device: `launch.elements("film", "film_forward", [y], ..)`.

    version  of the matrix products: 1, one thread for each result; 2, tiles in shared
             memory; 3, larger tiles that are prefetched, whose sums may be divided
             among blocks
    """

    def __init__(self, device, version=VERSIONS[-1]):
        expect(version in VERSIONS, f"version: expected one of {VERSIONS}, got {version!r}")
        self.device, self.version, self.xp, self.empty = device, version, device.xp, device.empty

    def elements(self, operation, kernel, outputs, inputs, *numbers, count=None):
        """One thread for each of `count` results of a task; None: all of outputs[0]."""
        count = outputs[0][:1].size if count is None else count
        grid = blocks_of(count, THREADS), 1
        self.run(operation, kernel, grid, THREADS, outputs, inputs, numbers)

    def teams(self, operation, kernel, teams, outputs, inputs, *numbers):
        """One block of TEAM threads for each of `teams` sums of a task."""
        self.run(operation, kernel, (teams, 1), TEAM, outputs, inputs, numbers)

    def product(self, operation, kernel, matrix, outputs, inputs, *numbers, newest=VERSIONS[-1]):
        """A matrix product by this launcher's version, or by the newest that it has.

        matrix  (rows, columns, depth) of the product. columns: a list, as a product may
                consist of several with as many rows. depth: terms of each result
        """
        (rows, columns, depth), version = matrix, min(self.version, newest)
        if version == 1:
            self.elements(operation, f"{kernel}_v1", outputs, inputs, *numbers)
        elif version == 2:
            grid = blocks_of(sum(columns), TILE), blocks_of(rows, TILE)
            self.run(operation, f"{kernel}_v2", grid, THREADS, outputs, inputs, numbers)
        else:
            grid = max(1, sum(-(-n // TILE) for n in columns)), blocks_of(rows, TILE)
            parts = parts_of(prod(grid), depth)
            self.in_parts(operation, f"{kernel}_v3", grid, parts, *outputs, inputs, numbers)

    def in_parts(self, operation, kernel, grid, parts, out, inputs, numbers, threads=LANES):
        """A product in which each tile's sums are divided among `parts` blocks.

        grid  (across, down): tiles. The partial sums are added in order.
        """
        sums = out if parts == 1 else self.empty((len(out), parts, *out.shape[1:]), out.dtype)
        grid, numbers = (grid[0], grid[1] * parts), (*numbers, parts)
        self.run(operation, kernel, grid, threads, [sums], inputs, numbers)
        if parts > 1:
            self.elements("vector", "vector_add_parts", [out], [sums], out[:1].size, parts)

    def run(self, operation, kernel, grid, threads, outputs, inputs, numbers, shared=0):
        """One launch for all tasks.

        Raises ValueError or TypeError, in one line, for arrays and numbers that the
        kernels cannot take.
        """
        tasks, dtype = max(len(a) for a in outputs), precision(outputs[0])
        if outputs[0].size == 0:
            return
        expect(tasks <= MAX_TASKS, f"{kernel}: expected at most {MAX_TASKS} tasks, got {tasks}")
        scalars = [scalar(kernel, n, dtype) for n in numbers]
        on_device = [self.on_device(kernel, a, dtype) for a in outputs]
        arrays = on_device + [self.on_device(kernel, a, dtype) for a in inputs]
        arguments = [part for a in arrays for part in (a, task_step(a))] + scalars
        self.device.launch(operation, kernel, dtype, (*grid, tasks), threads, arguments, shared)
        for a, filled in zip(outputs, on_device, strict=True):
            if filled is not a:
                a[...] = filled if isinstance(a, self.xp.ndarray) else self.xp.asnumpy(filled)

    def on_device(self, kernel, a, dtype):
        """`a` on the device, each task contiguous, reals in the kernel's precision.

        It is `a` itself where nothing has to change.
        """
        expect(
            prod(a.shape[1:]) <= MAX_NUMBERS,
            f"{kernel}: expected at most {MAX_NUMBERS} numbers in a task, got shape {a.shape}",
        )
        if not isinstance(a, self.xp.ndarray):
            a = self.xp.asarray(a)
        if a.dtype.kind == "f" and a.dtype != dtype:
            a = a.astype(dtype)
        # a[0] is a view that takes time to make: only where it must be.
        in_order = len(a) == 0 or a.flags.c_contiguous or a[0].flags.c_contiguous
        return a if in_order else self.xp.ascontiguousarray(a)


def scalar(kernel, n, dtype):
    """A number as the kernel's int or real."""
    if not isinstance(n, int | np.integer):
        return np.dtype(dtype).type(n)
    expect(-(2**31) <= n < 2**31, f"{kernel}: expected integers of 32 bits, got {n}")
    return np.int32(n)


def task_step(a):
    """How many numbers from one task to the next; 0 where there is one task."""
    return np.int64(a.strides[0] // a.itemsize if len(a) > 1 else 0)


def precision(a):
    """The name of an array's dtype; TypeError for one that no kernel has."""
    if a.dtype.name not in PRECISIONS:
        raise TypeError(
            f"the cuda kernels: expected float32 and float64, got {a.dtype.name}; "
            "refmaml.kernels.reference() takes any"
        )
    return a.dtype.name


def expect(condition, text):
    if not condition:
        raise ValueError(text)
