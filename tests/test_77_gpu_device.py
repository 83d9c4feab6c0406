"""The bench's device `Gpu` on a stand-in for CuPy: arrays, streams, graphs, events."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from gpu_stand_in import LIMITS, SMALL

from refmaml.bench.gpu import (
    determinism,
    device,
    kernel_rows,
    replay,
    roofs,
    rotation,
    sanitizer_program,
    standalone,
)
from refmaml.bench.kernel_table import fused_functions
from refmaml.bench.workloads import TABLE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))]
MILLISECONDS = 2.0
ATTRIBUTES = {
    "L2CacheSize": 4096,
    "MultiProcessorCount": 2,
    "ClockRate": 10**6,
    "MemoryClockRate": 500_000,
    "GlobalMemoryBusWidth": 64,
}


class Event:
    """Has the interface of cupy.cuda.Event."""

    def record(self, stream):
        self.on = stream

    def synchronize(self):
        pass


@pytest.fixture
def gpu(cupy, monkeypatch):
    """Gpu on the stand-in, with the further names of CuPy that it needs."""
    cuda, names = cupy.cuda, list(ATTRIBUTES)
    cuda.Device = lambda: SimpleNamespace(id=0, synchronize=lambda: None)
    cuda.Event, cuda.get_elapsed_time = Event, lambda before, after: MILLISECONDS
    cuda.nvrtc = SimpleNamespace(getVersion=lambda: (13, 0))
    for i, name in enumerate(names):
        setattr(cuda.runtime, f"cudaDevAttr{name}", i)
    cuda.runtime.deviceGetAttribute = lambda attribute, which: ATTRIBUTES[names[attribute]]
    cuda.runtime.getDeviceProperties = lambda which: {
        "name": b"stand-in",
        "totalGlobalMem": 1,
        "major": 9,
        "minor": 0,
    }
    cuda.runtime.driverGetVersion = cuda.runtime.runtimeGetVersion = lambda: 13000
    cupy.__version__ = "14"
    cupy.matmul = lambda a, b, out: out.__setitem__(slice(None), a @ b)
    monkeypatch.setattr(device, "nvidia_smi", dict)
    monkeypatch.setattr(
        kernel_rows,
        "versions",
        lambda kernel: [1 if kernel.startswith(("conv2d", "linear")) else None],
    )
    gpu = device.Gpu()
    gpu.kernel_set = lambda version=None: device.Gpu.kernel_set(
        gpu, 1
    )  # with its small teams the others do not run
    return gpu


def test_its_properties_are_json(gpu):
    found = json.loads(json.dumps(gpu.properties()))
    assert (
        found["name"] == "stand-in"
        and found["compute_capability"] == [9, 0]
        and found["clock_khz"] == 10**6
        and gpu.l2 == 4096
    )


def test_its_attributes_exist_in_cupy(monkeypatch):
    monkeypatch.undo()
    real = pytest.importorskip("cupy")
    for name in ATTRIBUTES:
        assert hasattr(real.cuda.runtime, f"cudaDevAttr{name}"), name


def test_timing_synchronizes_with_transfers_on_other_streams(gpu, monkeypatch):
    order = []
    monkeypatch.setattr(gpu, "synchronize", lambda: order.append("synchronize"))
    gpu.timings(lambda: order.append("run"), 1, graph=False)
    assert order[0] == "synchronize" and set(order[1:]) == {"run"}


def test_a_run_is_captured_and_replayed_and_timed_by_events(gpu, cupy):
    a = cupy.zeros(4, np.float32)
    times, graph = gpu.timings(lambda: a.__iadd__(np.float32(1)), 5)
    assert graph and times == [MILLISECONDS / 1e3] * 5
    assert (
        float(a.sum()) / 4 == device.WARM_UP_RUNS + device.WARM_UP_RUNS + 1 + 5
    )  # what is captured is not run


def test_several_short_runs_are_timed_between_two_events(gpu, cupy, monkeypatch):
    """An idle GPU needs some 10 us to start a graph: one run alone would count them."""
    a, start, each = cupy.zeros(4, np.float32), 1e-2, 5e-2  # milliseconds
    seen = [2 * device.WARM_UP_RUNS]

    def elapsed(before, after):
        runs, seen[0] = float(a.sum()) / 4 - seen[0], float(a.sum()) / 4
        return start + runs * each

    monkeypatch.setattr(gpu.xp.cuda, "get_elapsed_time", elapsed)
    times, _ = gpu.timings(lambda: a.__iadd__(np.float32(1)), 5)
    assert all(each / 1e3 < t < 1.02 * each / 1e3 for t in times) and seen[0] > 5 * 10


def test_a_run_that_cannot_be_captured_is_launched(gpu, cupy):
    a, seen = cupy.ones(4, np.float32), []
    times, graph = gpu.timings(lambda: seen.append(float(a.sum())), 3)
    assert not graph and len(times) == 3 and len(seen) == 3 + 1 + 2 * device.WARM_UP_RUNS
    assert gpu.timings(lambda: None, 1)[1]  # the stream still works


def first_of_each(calls):
    """One call of each kernel; other tests check all calls."""
    return list({call.kernel: (call, 2) for call, _ in reversed(calls)}.values())


def test_kernels_and_bits_and_gradients_on_arrays_of_a_gpu(gpu, monkeypatch):
    monkeypatch.setattr(rotation, "REPEATS", 1)
    monkeypatch.setattr(rotation, "MAX_SETS", 2)
    monkeypatch.setattr(standalone, "REPEATS", 1)
    monkeypatch.setattr(device, "WARM_UP_RUNS", 1)
    calls = first_of_each(kernel_rows.recorded_calls(SMALL))
    rows = list(kernel_rows.kernel_rows(gpu, LIMITS, calls))
    wrong = [row for row in rows if not row.right]
    assert {row.kernel for row in rows} >= set(fused_functions())
    assert not wrong and all(row.timing.graph for row in rows)
    assert determinism.kernel_bits(gpu, calls[0][0], 1, "float32", 3).different == 0
    part = standalone.measure(gpu, TABLE["sinusoid-1"].with_tasks(2))
    assert part.exact < 1e-12 and part.graph is not None and part.replayed, part.graph_refused


def test_a_graph_has_the_bits_of_launches(gpu, tmp_path, monkeypatch):
    monkeypatch.setitem(TABLE, "sinusoid-1", TABLE["sinusoid-1"].with_tasks(2))
    monkeypatch.setattr(replay, "REPLAYS", 1)
    assert replay.main(tmp_path / "found.json", gpu, (("sinusoid-1", "float32"),)) == 0
    assert determinism.gradient_bits(gpu, TABLE["sinusoid-1"], "float32", 2).digests


def test_limits_on_arrays_of_a_gpu(gpu, monkeypatch):
    monkeypatch.setattr(roofs, "COPY_BYTES", 1 << 12)
    monkeypatch.setattr(roofs, "MATRIX_ROWS", {"float32": 4, "float64": 4})
    monkeypatch.setattr(gpu, "launch", lambda kernel, dtype, grid, threads, arguments: None)
    assert set(roofs.roofs(gpu)) == set(LIMITS)


@pytest.mark.slow
def test_the_small_program_on_arrays_of_a_gpu(gpu, capsys):
    sanitizer_program.run_everything(gpu, sanitizer_program.small_nets())
    assert "kernels ran" in capsys.readouterr().out
