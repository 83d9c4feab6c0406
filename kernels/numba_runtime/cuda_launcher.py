"""What every `numba_cuda.py` shares: a thread for each result, and how arrays get to it.

These are the CUDA kernels to read and to teach with: plain, one thread for each number or channel, sums in the order they are written.
blockIdx.y is the task, cuda.grid(1) the result; weights that all tasks share are found at t % len(w).

Arrays of the GPU (whoever made them) are taken as they are; NumPy's are copied there and back.
"""

import numpy as np
from numba import cuda

THREADS = 128  # of a block, or as many as there are results


def for_each(kernel, results, outputs, inputs, *numbers):
    """kernel(outputs, inputs, numbers) on a thread for each of `results` results of every task."""
    if results == 0 or len(outputs[0]) == 0:
        return
    brought = [bring(a) for a in (*outputs, *inputs)]
    threads = min(THREADS, results)
    kernel[(-(-results // threads), len(outputs[0])), threads](*brought, *numbers)
    for a, there in zip(outputs, brought, strict=False):
        if there is not a:
            a[...] = there.copy_to_host()


@cuda.jit(device=True)
def unravel(k, shape):
    """Number k of an array of four axes, in row order, as its indices."""
    _, B, C, D = shape
    return k // (B * C * D), k // (C * D) % B, k // D % C, k % D


def bring(a):
    """`a` on the GPU."""
    return a if hasattr(a, "__cuda_array_interface__") else cuda.to_device(np.ascontiguousarray(a))
