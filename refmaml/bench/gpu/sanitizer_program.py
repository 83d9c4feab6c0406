"""The program that compute-sanitizer runs: every kernel once on small arrays.

    python -m refmaml.bench.gpu.sanitizer_program [memcheck|racecheck|initcheck]

Each array has its own block of memory. With a tool's name the program runs, instead, a
kernel with a mistake that this tool must find; that shows whether the tool works here.
"""

import sys

import numpy as np

from refmaml.bench.gpu import engine
from refmaml.bench.gpu.kernel_rows import DTYPES, arguments_on_device, recorded_calls, versions
from refmaml.bench.workloads import TABLE
from refmaml.execution import Sequential
from refmaml.layers import (
    AvgPool2d,
    BatchNorm2d,
    Context,
    Conv2d,
    CrossEntropy,
    FiLM,
    Flatten,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Softplus,
    Tanh,
)
from refmaml.models import mlp

PLANTED = {
    "memcheck": 'extern "C" __global__ void planted(float *a) { a[64 + threadIdx.x] = 1; }',
    "racecheck": 'extern "C" __global__ void planted(float *a) { __shared__ float s[64]; '
    "s[threadIdx.x] = a[threadIdx.x]; a[threadIdx.x] = s[63 - threadIdx.x]; }",
    "initcheck": 'extern "C" __global__ void planted(float *a) { a[threadIdx.x] += 1; }',
}


def small_nets():
    """Nets with every layer: odd sizes, and more than one tile of each product."""
    every = Sequential(
        [
            Context(2),
            Conv2d(3, 70, 3, padding=1),
            BatchNorm2d(70),
            FiLM(70, 4),
            GroupNorm(7, 70),
            LeakyReLU(0.1),
            AvgPool2d(2),
            Conv2d(70, 5, 3, stride=2, padding=1),
            BatchNorm2d(5),
            ReLU(),
            MaxPool2d(2),
            Softplus(),
            Flatten(),
            Linear(5, 66),
            LayerNorm(66),
            Tanh(),
            Linear(66, 5),
        ],
        CrossEntropy(),
        (1, 9, 10),
    )
    return {"every layer": (every, 2, 3), "sinusoid": (mlp((1, 5, 1)), 2, 3)}


def run_everything(gpu, nets):
    """Run every version of every kernel in both precisions, and a meta-gradient."""
    count = 0
    for call, _ in recorded_calls(nets):
        for dtype in DTYPES:
            for version in versions(call.kernel):
                gpu.kernel_set(version).functions[call.kernel](
                    *arguments_on_device(gpu, call, dtype)
                )
                count += 1
    gradient = gpu.to_host(engine.eager(TABLE["tiny"], np.float32, gpu.kernel_set())())
    gpu.synchronize()
    print(f"{count} kernels ran, and a meta-gradient of {gradient.size} numbers")


def run_planted(xp, tool):
    """Run the kernel with the planted mistake, on 64 numbers."""
    a = xp.empty(64, np.float32)
    if tool != "initcheck":
        a[...] = 1
    xp.RawModule(code=PLANTED[tool], options=("--std=c++17",)).get_function("planted")(
        (1,), (64,), (a,)
    )
    xp.cuda.Device().synchronize()


if __name__ == "__main__":
    import cupy

    from refmaml.bench.gpu.device import Gpu

    cupy.cuda.set_allocator(None)  # without a pool each array is one allocation
    if sys.argv[1:]:
        run_planted(cupy, sys.argv[1])
    else:
        run_everything(Gpu(), small_nets())
