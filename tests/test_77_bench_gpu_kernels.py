"""`refmaml bench --kernels cuda` without a GPU: kernels and roofs.

Rates are computed on a device with given times; errors are planted.
"""

import re
from math import isclose

import numpy as np
import pytest
from cuda_shim import nvrtc
from cuda_shim.build import ABSENT, build, load
from cuda_shim.device import ShimDevice
from gpu_stand_in import LIMITS, SMALL, StandIn, named_cuda, right_kernels, wrong_by_a_thousandth

from refmaml.bench.gpu import device, kernel_rows, roofs, rotation
from refmaml.bench.gpu.sanitizer_program import PLANTED
from refmaml.kernels.cuda_runtime.source import source

pytestmark = pytest.mark.slow

needs_compiler = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))


# ---- the device's limits ----


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """A launch of roofs.cu on the CPU, by the shim, in three orders of threads.

    Its arguments are (kernel, dtype, grid, threads, arguments).
    """
    folder = tmp_path_factory.mktemp("roofs")
    libraries = {
        dtype: load(build("", {"roofs": device.ROOFS.read_text()}, dtype, folder))
        for dtype in ("float32", "float64")
    }
    shim = ShimDevice(libraries)
    return lambda *launch: shim.launch("roofs", *launch, 0)  # no dynamic shared memory


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_thread_does_as_many_multiply_adds_as_are_counted(launched, dtype):
    real, rounds, threads = np.dtype(dtype).type, 3, 32
    y = np.arange(2 * threads, dtype=dtype)
    begin = y.copy()
    launched("multiply_add", dtype, (2, 1, 1), threads, [y, real(1), real(1), np.int32(rounds)])
    steps = rounds * roofs.STEPS  # each adds 1 to each chain
    assert np.array_equal(y, sum(begin + c + steps for c in range(roofs.CHAINS)))


@needs_compiler
@pytest.mark.parametrize("pieces", [1, 100, 4 * 32 * 3, 4 * 32 * 3 + 5])
def test_a_copy_copies_all_pieces_and_nothing_else(launched, pieces):
    x = np.random.default_rng(0).standard_normal(4 * pieces + 8).astype(np.float32)
    y = np.full_like(x, np.nan)
    launched(
        "copy", "float32", (-(-pieces // (roofs.AT_ONCE * 32)), 1, 1), 32, [y, x, np.int32(pieces)]
    )
    assert np.array_equal(y[: 4 * pieces], x[: 4 * pieces]) and np.isnan(y[4 * pieces :]).all()


@pytest.mark.skipif(nvrtc.library() is None, reason=nvrtc.REASON)
@pytest.mark.parametrize("real", ["float", "double"])
def test_the_kernels_of_the_limits_and_the_planted_ones_compile_for_a_gpu_without_spills(real):
    compiler = nvrtc.Compiler(nvrtc.library())
    for text in (device.ROOFS.read_text(), *PLANTED.values()):
        for arch in ("sm_75", "sm_90", "sm_120"):
            assert all(
                r.stack == r.spilled == 0 for r in compiler.compile(text, arch, real).values()
            )


def test_roofs_are_operations_and_bytes_over_the_time_measured(monkeypatch):
    monkeypatch.setattr(roofs, "COPY_BYTES", 1 << 16)
    monkeypatch.setattr(roofs, "MATRIX_ROWS", {"float32": 16, "float64": 8})
    grids = {}
    found = roofs.roofs(
        StandIn(
            seconds=(2e-3,),
            launched=lambda kernel, dtype, grid, *rest: grids.update({(kernel, dtype): grid}),
        )
    )
    threads = 2 * roofs.BLOCKS * roofs.THREADS  # two multiprocessors
    assert grids["multiply_add", "float32"] == (2 * roofs.BLOCKS, 1, 1)
    assert isclose(
        found["float32"].rate,
        threads * 2 * roofs.CHAINS * roofs.STEPS * roofs.ROUNDS["float32"] / 2e-3 / 1e9,
    )
    assert isclose(found["copy"].rate, 2 * 65536 / 2e-3 / 1e9) and isclose(
        found["dgemm"].rate, 2 * 8**3 / 2e-3 / 1e9
    )
    assert (
        found["float32"].nominal == 2 * 128 * 2 * 1 and found["float64"].nominal == 2 * 64 * 2
    )  # lanes, multiprocessors, GHz
    assert (
        isclose(found["copy"].nominal, 2 * 0.5 * 64 / 8)
        and found["float32"].seconds.count == roofs.REPEATS >= 30
    )


# ---- rotation ----


@pytest.mark.parametrize("size", [1, 1000, 4096, 10**6])
def test_sets_together_are_twice_the_cache_unless_they_are_too_many(size):
    count = rotation.sets_exceeding_cache(l2 := 1 << 16, size)
    assert 2 <= count <= rotation.MAX_SETS and (
        count * size >= 2 * l2 or count == rotation.MAX_SETS
    )


def test_a_run_is_one_launch_on_each_set_and_a_time_is_its_share():
    seen = []
    a = np.arange(512, dtype=np.float64)
    timing = rotation.time_rotating(
        StandIn(seconds=(4.0, 8.0)), lambda x, n: seen.append((x.ctypes.data, x.copy(), n)), [a, 7]
    )
    assert timing.sets == 2 and timing.rotated == 2 * a.nbytes == 2 * StandIn.l2 and timing.graph
    assert len({place for place, _, _ in seen}) == 2 and all(
        np.array_equal(x, a) and n == 7 for _, x, n in seen
    )
    assert (
        timing.seconds.least == 2.0
        and timing.seconds.median == 4.0
        and timing.seconds.count == rotation.REPEATS >= 30
    )


# ---- kernels ----


@pytest.fixture(scope="module")
def calls():
    return kernel_rows.recorded_calls(SMALL)


def test_versions_are_those_that_the_source_defines():
    for operation in ("conv2d", "linear"):
        defined = set(re.findall(rf"{operation}_backward_w_v(\d+)", source(operation)))
        assert (
            kernel_rows.versions(f"{operation}_forward") == sorted(map(int, defined))
            and len(defined) > 1
        )
    assert kernel_rows.versions("bias_forward") == [None]


def test_every_version_and_precision_of_every_call_is_a_row(calls):
    rows = list(kernel_rows.kernel_rows(StandIn(), LIMITS, calls))
    expected = {
        (call.kernel, version, dtype)
        for call, _ in calls
        for version in kernel_rows.versions(call.kernel)
        for dtype in ("float32", "float64")
    }
    assert {(row.kernel, row.version, row.dtype) for row in rows} == expected
    assert {row.kernel for row in rows} == {call.kernel for call, _ in calls} and all(
        row.right for row in rows
    )


def test_a_row_s_floor_is_the_roof_that_takes_longer(calls):
    call = next(
        call
        for call, _ in calls
        if call.kernel == "conv2d_forward" and call.arguments[0].shape[3] > 2
    )
    exact, tasks = kernel_rows.reference_results(call), 6
    row = kernel_rows.kernel_row(StandIn(seconds=(1e-3,)), LIMITS, call, exact, tasks, 2, "float32")
    y, x, w = call.arguments[:3]
    per_launch = 1e-3 / row.timing.sets
    assert row.flop == 2 * tasks * y[0].size * w[0, 0].size and row.bytes == 4 * tasks * (
        y[0].size + x[0].size + w[0].size
    )
    assert isclose(row.gflops, row.flop / per_launch / 1e9) and isclose(
        row.gbytes, row.bytes / per_launch / 1e9
    )
    floors = {"flop": row.flop / 100e9, "byte": row.bytes / 10e9}
    assert row.bound == max(floors, key=floors.get) and isclose(
        row.fraction, max(floors.values()) / per_launch
    )
    assert isclose(row.of_library, row.gflops / 80)
    double = kernel_rows.kernel_row(
        StandIn(seconds=(1e-3,)), LIMITS, call, exact, tasks, 2, "float64"
    )
    assert (
        double.bytes == 2 * row.bytes
        and isclose(double.of_library, double.gflops / 90)
        and double.tolerance < 1e-12
    )


@pytest.mark.parametrize("name", ["conv2d_forward", "linear_backward_w", "batch_norm_backward"])
def test_a_wrong_kernel_is_a_row_that_is_not_right(calls, name):
    rows = kernel_rows.kernel_rows(
        StandIn(lambda version: wrong_by_a_thousandth(name)),
        LIMITS,
        [c for c in calls if c[0].kernel == name],
    )
    assert not any(row.right for row in rows)


def test_a_kernel_that_is_wrong_only_in_the_last_task_is_not_right(calls):
    right = right_kernels()

    def wrong(y, *rest):
        right.conv2d_forward(y, *rest)
        if len(y) > kernel_rows.FEW_TASKS:
            y[-1, 0, 0] = np.nextafter(y[-1, 0, 0], 1)

    rows = list(
        kernel_rows.kernel_rows(
            StandIn(lambda version: named_cuda(right, conv2d_forward=wrong)),
            LIMITS,
            [c for c in calls if c[0].kernel == "conv2d_forward"],
        )
    )
    assert rows and all(
        row.error <= row.tolerance and not row.same and not row.right for row in rows
    )


def test_a_kernel_that_fails_is_a_row_and_the_others_continue(calls):
    def broken(*arguments):
        raise RuntimeError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES\nmore")

    rows = list(
        kernel_rows.kernel_rows(
            StandIn(lambda version: named_cuda(right_kernels(), bias_forward=broken)), LIMITS, calls
        )
    )
    failed = [row for row in rows if isinstance(row, kernel_rows.Failed)]
    assert {row.kernel for row in failed} == {"bias_forward"} and len(rows) > len(failed)
    assert {row.reason for row in failed} == {
        "RuntimeError: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
    } and not any(row.right for row in failed)


def test_a_device_that_no_longer_answers_ends_the_table(calls):
    gpu = StandIn()
    gpu.synchronize = lambda: 1 / 0
    rows = list(kernel_rows.kernel_rows(gpu, LIMITS, calls))
    assert rows[-1].reason.startswith("the device no longer answers: ZeroDivisionError")
    assert len(rows) == 1 + len(kernel_rows.versions(calls[0][0].kernel)) * len(kernel_rows.DTYPES)


def test_grown_arrays_repeat_the_first_tasks():
    a = np.arange(6).reshape(2, 3)
    assert np.array_equal(
        kernel_rows.repeat_tasks(np, a, 5), a[[0, 1, 0, 1, 0]]
    ) and kernel_rows.repeat_tasks(np, a[:1], 5).shape == (1, 3)
