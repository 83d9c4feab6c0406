"""The shim that runs CUDA kernels on the CPU must catch what it is made to catch.

Each kernel here but the first has a mistake.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda_shim.build import ABSENT, build, load, sanitizer_library
from cuda_shim.device import RaceError, ShimDevice

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))]
HERE = Path(__file__).parent
COMMON = "typedef REAL real;\n"
KERNELS = r"""
extern "C" __global__ void reverse(real *y, const real *x, int n)
{
    __shared__ real part[64];
    int i = threadIdx.x;
    part[i] = x[i];
    __syncthreads();
    y[i] = part[n - 1 - i];
}

extern "C" __global__ void no_barrier(real *y, const real *x, int n)
{
    __shared__ real part[64];
    int i = threadIdx.x;
    part[i] = x[i];
    y[i] = part[n - 1 - i];
}

extern "C" __global__ void barrier_too_few(real *y, const real *x, int n)
{
    __shared__ real part[64];
    int i = threadIdx.x;
    part[i] = x[i];
    __syncthreads();
    for (int half = n / 2; half > 0; half /= 2)
        if (i < half) part[i] += part[i + half];
    __syncthreads();
    y[i] = part[0];
}

extern "C" __global__ void one_place_for_all(real *y, const real *x, int)
{
    y[0] = x[threadIdx.x];
}

extern "C" __global__ void barrier_for_some(real *y, const real *x, int n)
{
    if (int(threadIdx.x) < n / 2) __syncthreads();
    y[threadIdx.x] = x[threadIdx.x];
}

extern "C" __global__ void sum_of_each_warp(real *y, const real *x, int)
{
    real sum = x[threadIdx.x];
    for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(~0u, sum, lane);
    y[threadIdx.x] = sum;
}

extern "C" __global__ void a_warp_does_not_wait_for_another(real *y, const real *x, int n)
{
    __shared__ real part[64];
    int i = threadIdx.x;
    part[i] = x[i] + 0 * __shfl_xor_sync(~0u, x[i], 1);
    y[i] = part[n - 1 - i];
}

extern "C" __global__ void exchange_for_some(real *y, const real *x, int n)
{
    int i = threadIdx.x;
    y[i] = i % 2 ? x[i] : __shfl_xor_sync(~0u, x[i], 1);
}

extern "C" __global__ void reads_unwritten_memory(real *y, const real *x, int n)
{
    __shared__ real part[64];
    if (int(threadIdx.x) < n - 1) part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = part[threadIdx.x];
}

extern "C" __global__ void one_too_many(real *y, const real *x, int)
{
    y[threadIdx.x + 1] = x[threadIdx.x];
}

extern "C" __global__ void beyond_shared_memory(real *y, const real *x, int)
{
    __shared__ real part[63];
    part[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = part[0];
}
"""
SANITIZED = """
import sys
from test_13_cuda_shim import library, run
print(run(library(sys.argv[1], sanitize=True), sys.argv[2])[:3])
"""


def library(folder, sanitize=False):
    return load(build(COMMON, {"planted": KERNELS}, "float64", folder, sanitize))


def run(loaded, kernel):
    """y of a kernel on x = 1 .. 64."""
    x, y = np.arange(1.0, 65), np.full(64, np.nan)
    ShimDevice({"float64": loaded}).launch(
        "planted", kernel, "float64", (1, 1, 1), 64, [y, x, np.int32(64)]
    )
    return y


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return library(tmp_path_factory.mktemp("shim"))


def test_a_kernel_without_mistakes_has_the_right_result(loaded):
    assert np.array_equal(run(loaded, "reverse"), np.arange(64.0, 0, -1))


@pytest.mark.parametrize(
    "kernel",
    ["no_barrier", "barrier_too_few", "one_place_for_all", "a_warp_does_not_wait_for_another"],
)
def test_a_race_is_caught_as_the_schedules_disagree(loaded, kernel):
    with pytest.raises(RaceError, match=f"{kernel}: the schedule .* gives other bits than forward"):
        run(loaded, kernel)


def test_a_barrier_that_only_some_threads_reach_is_caught(loaded):
    with pytest.raises(RaceError, match="only some threads"):
        run(loaded, "barrier_for_some")


def test_lanes_of_a_warp_exchange_their_values(loaded):
    assert np.array_equal(
        run(loaded, "sum_of_each_warp"), np.repeat([sum(range(1, 33)), sum(range(33, 65))], 32)
    )


def test_an_exchange_that_only_some_lanes_reach_is_caught(loaded):
    with pytest.raises(RaceError, match="only some lanes"):
        run(loaded, "exchange_for_some")


def test_unwritten_shared_memory_is_nan_in_every_block(loaded):
    run(loaded, "reverse")  # its numbers stay in memory
    y = run(loaded, "reads_unwritten_memory")
    assert np.isnan(y[63]) and not np.isnan(y[:63]).any()


def sanitized(script, *arguments):
    runtime = sanitizer_library()
    if runtime is None:
        pytest.skip("g++ comes without AddressSanitizer here")
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }
    return subprocess.run(
        [sys.executable, *script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "kernel,error",
    [("one_too_many", "heap-buffer-overflow"), ("beyond_shared_memory", "global-buffer-overflow")],
)
def test_an_access_out_of_bounds_is_caught_with_its_line(tmp_path, kernel, error):
    result = sanitized(["-c", SANITIZED], tmp_path, kernel)
    assert result.returncode != 0 and error in result.stderr and "planted.cu:" in result.stderr, (
        result.stdout + result.stderr
    )


def test_the_sanitizer_accepts_a_kernel_without_mistakes(tmp_path):
    result = sanitized(["-c", SANITIZED], tmp_path, "reverse")
    assert result.stdout.split() == ["[64.", "63.", "62.]"], result.stderr


@pytest.mark.slow
def test_no_kernel_of_the_project_accesses_memory_out_of_bounds(tmp_path):
    result = sanitized([HERE / "cuda_shim" / "kernels.py"], tmp_path)
    assert result.returncode == 0 and "kernels ran" in result.stdout, (
        result.stdout + result.stderr[-3000:]
    )
