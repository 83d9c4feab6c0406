"""The device's limits: operations and bytes a second, measured and nominal.

They are measured in the same run as the kernels that are compared with them.

float32, float64  a kernel of fused multiply-adds only, on every multiprocessor
                  (roofs.cu)
copy              a kernel that copies an array many times larger than the L2 cache;
                  bytes read and bytes written both count
sgemm, dgemm      the library's matrix product, as a second figure. A library may
                  compute float64 on tensor cores: dgemm then exceeds the float64 roof,
                  which is the limit of kernels without them
"""

from typing import NamedTuple

import numpy as np

from refmaml.bench.timing import Spread, spread

REPEATS = 30
CHAINS, STEPS, AT_ONCE, BYTES = 8, 16, 4, 16  # as in roofs.cu
THREADS, BLOCKS = 256, 8  # threads of a block, blocks of a multiprocessor
ROUNDS = {"float32": 4096, "float64": 2048}  # of one launch
COPY_BYTES = 1 << 30
MATRIX_ROWS = {"float32": 8192, "float64": 8192}
# Fused multiply-adds of a multiprocessor per clock, (float32, float64), by compute
# capability: CUDA C++ Programming Guide, throughput of arithmetic instructions.
LANES = {
    (7, 5): (64, 2),
    (8, 0): (64, 32),
    (8, 6): (128, 2),
    (8, 9): (128, 2),
    (9, 0): (128, 64),
    (10, 0): (128, 64),
    (12, 0): (128, 2),
}


class Roof(NamedTuple):
    """rate     10^9 operations or bytes a second at the median
    nominal  the same by the device's specification; None if unknown
    """

    rate: float
    nominal: float | None
    seconds: Spread


def roofs(gpu):
    """{name: Roof} for float32, float64, copy, sgemm and dgemm."""
    info = gpu.properties()
    processors, lanes = info["multiprocessors"], LANES.get(tuple(info["compute_capability"]))
    found = {}
    for i, (dtype, library) in enumerate((("float32", "sgemm"), ("float64", "dgemm"))):
        nominal = lanes and 2e-6 * lanes[i] * processors * info["clock_khz"]
        found[dtype] = multiply_add(gpu, dtype, processors, nominal)
        found[library] = product(gpu, dtype, nominal)
    found["copy"] = copy(gpu, 2e-6 * info["memory_clock_khz"] * info["memory_bus_bits"] / 8)
    return found


def multiply_add(gpu, dtype, multiprocessors, nominal):
    """The Roof of arithmetic: two operations for each multiply-add."""
    blocks, rounds, real = BLOCKS * multiprocessors, ROUNDS[dtype], np.dtype(dtype).type
    noise = np.random.default_rng(0).standard_normal(blocks * THREADS).astype(dtype)
    arguments = [gpu.to_device(noise), real(-1), real(1), np.int32(rounds)]
    times, _ = gpu.timings(
        lambda: gpu.launch("multiply_add", dtype, (blocks, 1, 1), THREADS, arguments), REPEATS
    )
    seconds = spread(times)
    operations = 2 * CHAINS * STEPS * rounds * blocks * THREADS
    return Roof(1e-9 * operations / seconds.median, nominal, seconds)


def noise(shape, seed=0):
    """Normal float32 numbers: a million, repeated. Drawing a gigabyte takes seconds."""
    return np.resize(np.random.default_rng(seed).standard_normal(1 << 20, np.float32), shape)


def copy(gpu, nominal):
    """The Roof of memory."""
    x = gpu.to_device(noise(COPY_BYTES // 4))
    y, pieces = gpu.xp.empty(x.shape, x.dtype), COPY_BYTES // BYTES
    grid = (-(-pieces // (AT_ONCE * THREADS)), 1, 1)
    times, _ = gpu.timings(
        lambda: gpu.launch("copy", "float32", grid, THREADS, [y, x, np.int32(pieces)]), REPEATS
    )
    seconds = spread(times)
    return Roof(2e-9 * COPY_BYTES / seconds.median, nominal, seconds)


def product(gpu, dtype, nominal):
    """The Roof of the library's C = A B: 2 n^3 operations."""
    n = MATRIX_ROWS[dtype]
    a, b = (gpu.to_device(noise((n, n), seed).astype(dtype)) for seed in range(2))
    c = gpu.xp.empty(a.shape, a.dtype)
    times, _ = gpu.timings(lambda: gpu.xp.matmul(a, b, out=c), REPEATS, graph=False)
    seconds = spread(times)
    return Roof(2e-9 * n**3 / seconds.median, nominal, seconds)
