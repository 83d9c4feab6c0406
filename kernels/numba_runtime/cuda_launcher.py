"""What every `numba_cuda.py` uses: a thread for each result, and arrays on the GPU.

These are the CUDA kernels to read and to teach with: one thread for each number or
channel, sums in the order in which they are written. blockIdx.y is the task,
cuda.grid(1) the result. Weights that all tasks share have one row, found at t % len(w).

Arrays that are on the GPU, from any library, are used as they are. NumPy's are copied
to the GPU and back.
"""

import numpy as np
from numba import cuda

THREADS = 128  # threads of a block, at most


def for_each(kernel, results, outputs, inputs, *numbers):
    """kernel(outputs, inputs, numbers), a thread for each of a task's `results`."""
    if results == 0 or len(outputs[0]) == 0:
        return
    arrays = [to_gpu(a) for a in (*outputs, *inputs)]
    threads = min(THREADS, results)
    kernel[(-(-results // threads), len(outputs[0])), threads](*arrays, *numbers)
    for a, on_gpu in zip(outputs, arrays, strict=False):
        if on_gpu is not a:
            a[...] = on_gpu.copy_to_host()


@cuda.jit(device=True)
def unravel(k, shape):
    """The four indices of element k of an array in row-major order."""
    _, B, C, D = shape
    return k // (B * C * D), k // (C * D) % B, k // D % C, k % D


def to_gpu(a):
    return a if hasattr(a, "__cuda_array_interface__") else cuda.to_device(np.ascontiguousarray(a))
