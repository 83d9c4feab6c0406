"""What every `cuda.py` shares: how arrays are handed to a CUDA kernel, and how many threads it gets.

A kernel sees each array as an address and a step: the numbers of one task lie in one piece in the order of the array's axes, and the
tasks lie `step` numbers apart (0 where all tasks share them). So a gradient can be written into the columns of a matrix (T, P) without
a copy; arrays in any other order are copied, and NumPy's arrays are taken to the GPU and back. blockIdx.z is the task; a kernel's
arguments are its outputs, its inputs, its numbers.

A device runs the launches: `CupyDevice` on a GPU; a test may bring one of its own. It has

    xp                                                             the module its arrays come from
    empty(shape, dtype)                                            an uninitialised array
    launch(operation, kernel, dtype, grid, threads, arguments, shared)     arrays and NumPy's numbers, in the kernel's order; shared: bytes
                                                                   of shared memory of a block beyond what the kernel itself declares
"""

from math import prod
from pathlib import Path

import numpy as np

KERNELS = Path(__file__).parent.parent  # the folder of all operations
PRECISIONS = {"float32": "float", "float64": "double"}
THREADS = 256  # of a block whose threads each own a result
TEAM = 128  # of a block whose threads add up one result together: a power of two
TILE = 64  # rows and columns of a product that a block has (TILE in common.cu)
LANES = 64  # threads of such a block from v3 on
# {blocks of one task: k's each must have}: where there are fewer tiles, the k's are dealt to several blocks. 16 of each of some thirty
# tasks are 4 for each of an H200's 132 SMs, which have room for 6: worth it for short sums. What a part leaves is written and read once
# more, by estimate as long as 40 k's take; so only long sums are dealt to more, lest an SM be idle at the end, or where tasks are few. None
# of it depends on how many tasks travel together or on the GPU, so that a task's bits do not either.
ENOUGH = {16: 64, 36: 512, 144: 2048}
MOST_TASKS = 65535  # blocks along z
VERSIONS = (1, 2, 3)  # of the products of matrices, the newest last
MOST_NUMBERS = 2**31 - 1


def source(operation):
    """The CUDA text of an operation: what all share, then its own."""
    return common() + own(operation)


def common():
    """The CUDA text in front of every operation's own."""
    return text_of([KERNELS / "cuda_runtime" / name for name in ("common.cu", "gemm_v3.cu")])


def own(operation):
    """The CUDA text that only one operation needs: that of its name first, then what other .cu files lie beside it."""
    return text_of(sorted((KERNELS / operation).glob("*.cu")))


def text_of(files):
    """One file after the other; compilers name the file and the line."""
    return "".join(f'#line 1 "{path.name}"\n{path.read_text()}' for path in files)


def in_blocks(count, threads):
    return max(1, -(-count // threads))


def parts_of(tiles, depth):
    """Of how many blocks each of a task's tiles is the work, where a result has `depth` terms."""
    return max(
        1, *(min(in_blocks(blocks, tiles), depth // least) for blocks, least in ENOUGH.items())
    )


class Launcher:
    """Kernels of one device: `launch.elements("bias", "bias_forward", [y], [b], N, C, L)`.

    version  of the products of matrices: 1, a thread for each result; 2, in tiles; 3, in tiles fetched ahead, few of them dealt out along k
    """

    def __init__(self, device, version=VERSIONS[-1]):
        expect(version in VERSIONS, f"version: expected one of {VERSIONS}, got {version!r}")
        self.device, self.version, self.xp, self.empty = device, version, device.xp, device.empty

    def elements(self, operation, kernel, outputs, inputs, *numbers, count=None):
        """A thread for each of `count` results of a task (None: for each number of the first output)."""
        count = outputs[0][:1].size if count is None else count
        self.run(
            operation, kernel, (in_blocks(count, THREADS), 1), THREADS, outputs, inputs, numbers
        )

    def teams(self, operation, kernel, teams, outputs, inputs, *numbers):
        """A block of TEAM threads for each of `teams` sums of a task."""
        self.run(operation, kernel, (teams, 1), TEAM, outputs, inputs, numbers)

    def product(self, operation, kernel, matrix, outputs, inputs, *numbers, newest=VERSIONS[-1]):
        """A product of matrices by the version at hand, or the newest there is of it.

        matrix  (rows, columns, depth) of it: columns a list, as it may fall into several products of as many rows; depth: terms of a result
        """
        (rows, columns, depth), version = matrix, min(self.version, newest)
        if version == 1:
            self.elements(operation, f"{kernel}_v1", outputs, inputs, *numbers)
        elif version == 2:
            grid = in_blocks(sum(columns), TILE), in_blocks(rows, TILE)
            self.run(operation, f"{kernel}_v2", grid, THREADS, outputs, inputs, numbers)
        else:
            across, down = (
                max(1, sum(-(-count // TILE) for count in columns)),
                in_blocks(rows, TILE),
            )
            self.in_parts(
                operation,
                f"{kernel}_v3",
                across,
                down,
                parts_of(across * down, depth),
                *outputs,
                inputs,
                numbers,
            )

    def in_parts(self, operation, kernel, across, down, parts, out, inputs, numbers, threads=LANES):
        """A product whose every tile is the work of `parts` blocks; what each leaves is added up in order."""
        sums = out if parts == 1 else self.empty((len(out), parts, *out.shape[1:]), out.dtype)
        self.run(
            operation, kernel, (across, down * parts), threads, [sums], inputs, (*numbers, parts)
        )
        if parts > 1:
            self.elements("vector", "vector_add_parts", [out], [sums], out[:1].size, parts)

    def run(self, operation, kernel, grid, threads, outputs, inputs, numbers, shared=0):
        tasks, dtype = max(len(a) for a in outputs), precision(outputs[0])
        if outputs[0].size == 0:
            return
        expect(
            tasks <= MOST_TASKS,
            f"{kernel}: expected at most {MOST_TASKS} tasks in a launch, got {tasks}",
        )
        laid = [self.lay(kernel, a, dtype) for a in outputs]
        arguments = [
            part
            for a in laid + [self.lay(kernel, a, dtype) for a in inputs]
            for part in (a, task_step(a))
        ]
        arguments += [
            np.int32(n) if isinstance(n, (int, np.integer)) else np.dtype(dtype).type(n)
            for n in numbers
        ]
        self.device.launch(operation, kernel, dtype, (*grid, tasks), threads, arguments, shared)
        for a, ready in zip(outputs, laid, strict=True):
            if ready is not a:
                a[...] = ready if isinstance(a, self.xp.ndarray) else self.xp.asnumpy(ready)

    def lay(self, kernel, a, dtype):
        """`a` on the device with each task in one piece, reals in the kernel's precision: itself if it is so already."""
        expect(
            prod(a.shape[1:]) <= MOST_NUMBERS,
            f"{kernel}: expected at most {MOST_NUMBERS} numbers in a task, got shape {a.shape}",
        )
        if not isinstance(a, self.xp.ndarray):
            a = self.xp.asarray(a)
        if a.dtype.kind == "f" and a.dtype != dtype:
            a = a.astype(dtype)
        in_order = (
            len(a) == 0 or a.flags.c_contiguous or a[0].flags.c_contiguous
        )  # the last is a view to make: only where it must be
        return a if in_order else self.xp.ascontiguousarray(a)


def task_step(a):
    """How many numbers from one task to the next; 0 where there is but one."""
    return np.int64(a.strides[0] // a.itemsize if len(a) > 1 else 0)


def precision(a):
    """The name of an array's precision; TypeError for one that no kernel has."""
    if a.dtype.name not in PRECISIONS:
        raise TypeError(
            f"the cuda kernels: expected float32 and float64, got {a.dtype.name}; refmaml.kernels.reference() takes any"
        )
    return a.dtype.name


def expect(condition, text):
    if not condition:
        raise ValueError(text)


class CupyDevice:
    """The current GPU, through CuPy. A file is compiled for it when a kernel of the file is first called, once per precision.

    Source is kept, not cubins: CuPy's own cache on disk does what cubins would, for any card and any driver.
    """

    def __init__(self):
        self.xp = cupy_with_gpu()
        self.kernels = {}
        self.try_out()

    def try_out(self):
        """Compile and launch one small kernel: what does not fit together on this machine shows before any work is done.

        Raises RuntimeError in one line.
        """
        try:
            out, b = self.xp.empty((1, 1), np.float32), self.xp.full((1, 1), 3, np.float32)
            Launcher(self).elements("vector", "vector_scale", [out], [b, b], 1)
            product = float(out[0, 0])
        except Exception as error:  # CuPy, the driver and NVRTC each have exceptions of their own
            raise unusable(error) from None
        if product != 9:
            raise RuntimeError(
                f"the cuda kernels: expected 3 * 3 = 9 from the GPU, got {product}; {WAY_OUT}"
            )

    def empty(self, shape, dtype):
        return self.xp.empty(shape, dtype)

    def launch(self, operation, kernel, dtype, grid, threads, arguments, shared):
        self.kernel(operation, kernel, dtype)(
            grid, (threads, 1, 1), tuple(arguments), shared_mem=shared
        )

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
# What to do about it, by a word that CuPy's message has; the first that is found counts.
REMEDIES = {
    "InsufficientDriver": "a newer driver, or the CuPy for this one: pip install 'refmaml[cuda12]' in place of [cuda13]",
    "UNSUPPORTED_PTX_VERSION": "NVRTC is newer than the driver: a newer driver, or pip install 'refmaml[cuda12]' in place of [cuda13]",
    "UnsupportedPtxVersion": "NVRTC is newer than the driver: a newer driver, or pip install 'refmaml[cuda12]' in place of [cuda13]",
    "nvrtc": "NVRTC compiles the kernels: pip install 'cupy-cuda13x[ctk]' (or 'cupy-cuda12x[ctk]') brings it",
    "NO_BINARY_FOR_GPU": "this CuPy or NVRTC does not know the GPU",
    "NoKernelImageForDevice": "this CuPy or NVRTC does not know the GPU",
    "out of memory": "something else holds the GPU's memory",
}


def first_line(error):
    """The first line of an exception's text, and its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def unusable(error):
    """The RuntimeError, one line, for whatever CuPy, the driver or NVRTC raised."""
    said = first_line(error)
    remedy = next(
        (text + ", or " for word, text in REMEDIES.items() if word.lower() in said.lower()), ""
    )
    return RuntimeError(f"the cuda kernels: expected a GPU, got {said}; {remedy}{WAY_OUT}")


def cupy_with_gpu():
    """The module cupy, where it finds a GPU. ImportError without cupy, RuntimeError without a GPU: one line each."""
    try:
        import cupy
    except ModuleNotFoundError:
        raise ImportError(
            "the cuda kernels need cupy: pip install 'refmaml[cuda13]' (driver 580 or newer) or 'refmaml[cuda12]', "
            f"or {WAY_OUT}"
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
