"""What the device can do at most: multiply-adds and bytes a second, measured in the same run as what is held against them, and nominal.

float32, float64   a kernel that does nothing but fused multiply-adds on every multiprocessor (roofs.cu)
copy               a kernel that copies an array many times larger than the L2; bytes read and bytes written both count
sgemm, dgemm       the library's product of two matrices, as a second figure. A library may compute float64 on tensor cores: then
                   dgemm is beyond the float64 roof, which is what kernels without them can reach
"""

from typing import NamedTuple

import numpy as np

from refmaml.bench.timing import Spread, spread

REPEATS = 30
CHAINS, STEPS, AT_ONCE, BYTES = 8, 16, 4, 16  # as in roofs.cu
THREADS, BLOCKS, ROUNDS = (
    256,
    8,
    {"float32": 4096, "float64": 2048},
)  # of a block; blocks of a multiprocessor; of a launch
COPIED, MATRIX = 1 << 30, {"float32": 8192, "float64": 8192}  # bytes; rows of the matrices
# Fused multiply-adds of a multiprocessor in a clock, (float32, float64): CUDA C++ Programming Guide, throughput of arithmetic instructions.
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
    """rate: 10^9 operations or bytes a second at the median; of what the device is said to do, None where nobody says."""

    rate: float
    nominal: float | None
    seconds: Spread


def roofs(gpu):
    """{"float32": Roof, "float64": Roof, "copy": Roof, "sgemm": Roof, "dgemm": Roof}, and "under_load": what the driver said then."""
    about = gpu.about()
    lanes = LANES.get(tuple(about["compute_capability"]))
    found = {}
    for place, dtype in enumerate(("float32", "float64")):
        peak = lanes and 2e-6 * lanes[place] * about["multiprocessors"] * about["clock_khz"]
        found[dtype] = multiply_add(gpu, dtype, about["multiprocessors"], peak)
        found["sgemm" if dtype == "float32" else "dgemm"] = product(gpu, dtype, peak)
    found["copy"] = copy(gpu, 2e-6 * about["memory_clock_khz"] * about["memory_bus_bits"] / 8)
    return found


def multiply_add(gpu, dtype, multiprocessors, nominal):
    """10^9 operations a second, two for each multiply-add."""
    blocks, rounds = BLOCKS * multiprocessors, ROUNDS[dtype]
    y, real = (
        gpu.bring(np.random.default_rng(0).standard_normal(blocks * THREADS).astype(dtype)),
        np.dtype(dtype).type,
    )
    arguments = [y, real(-1), real(1), np.int32(rounds)]
    times, _ = gpu.timings(
        lambda: gpu.launch("multiply_add", dtype, (blocks, 1, 1), THREADS, arguments), REPEATS
    )
    took = spread(times)
    return Roof(2e-9 * CHAINS * STEPS * rounds * blocks * THREADS / took.median, nominal, took)


def noise(shape, seed=0):
    """Normal numbers in float32, a million of them again and again: drawing a gigabyte takes seconds, in which a GPU waits."""
    return np.resize(np.random.default_rng(seed).standard_normal(1 << 20, np.float32), shape)


def copy(gpu, nominal):
    """10^9 bytes a second."""
    x = gpu.bring(noise(COPIED // 4))
    y, pieces = gpu.xp.empty(x.shape, x.dtype), COPIED // BYTES
    grid = (-(-pieces // (AT_ONCE * THREADS)), 1, 1)
    times, _ = gpu.timings(
        lambda: gpu.launch("copy", "float32", grid, THREADS, [y, x, np.int32(pieces)]), REPEATS
    )
    took = spread(times)
    return Roof(2e-9 * COPIED / took.median, nominal, took)


def product(gpu, dtype, nominal):
    """10^9 operations a second of C = A B, 2 n^3 operations."""
    n = MATRIX[dtype]
    a, b = (gpu.bring(noise((n, n), seed).astype(dtype)) for seed in range(2))
    c = gpu.xp.empty(a.shape, a.dtype)
    times, _ = gpu.timings(lambda: gpu.xp.matmul(a, b, out=c), REPEATS, graph=False)
    took = spread(times)
    return Roof(2e-9 * n**3 / took.median, nominal, took)
