"""`refmaml bench --kernels cuda` without a GPU: its arithmetic on a device whose times are given, every check with the error it is for."""
import json
import re
from argparse import Namespace
from functools import lru_cache
from math import isclose
from time import sleep

import numpy as np
import pytest
from cuda_shim.build import ABSENT, build, load
from cuda_shim.device import ShimDevice
from gpu_stand_in import StandIn, named_cuda, wrong_by_a_thousandth

import refmaml as rm
from refmaml import kernels
from refmaml.bench import agreement, race, record
from refmaml.bench.contestants import cuda_peers, find, peers
from refmaml.bench.gpu import device, engine, grouped, kernel_rows, roofs, rotation, whole
from refmaml.bench.gpu import race as gpu_race
from refmaml.bench.kernel_calls import examples
from refmaml.bench.kernel_calls import record as record_calls
from refmaml.bench.timing import Spread, by_turns, spread
from refmaml.bench.worker import Worker, WorkerError
from refmaml.bench.workloads import TABLE
from refmaml.cli import bench_gpu, main
from refmaml.kernels.launcher import source

TINY = TABLE["tiny"]
SMALL = {"small": (rm.conv4(n_way=3, channels=4, image=(1, 8, 8)), 6, 3)}
LIMITS = {name: roofs.Roof(rate, None, spread([1.0])) for name, rate in
          {"float32": 100.0, "float64": 50.0, "sgemm": 80.0, "dgemm": 90.0, "copy": 10.0}.items()}
needs_compiler = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))


# ---- the device's limits -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """(kernel, dtype, grid, threads, arguments) of roofs.cu on the CPU, in three orders of threads."""
    folder = tmp_path_factory.mktemp("roofs")
    libraries = {dtype: load(build("", {"roofs": device.ROOFS.read_text()}, dtype, folder)) for dtype in ("float32", "float64")}
    shim = ShimDevice(libraries)
    extra = () if shim.launch.__code__.co_argcount == 7 else (0,)
    return lambda *launch: shim.launch("roofs", *launch, *extra)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_thread_does_as_many_multiply_adds_as_are_counted(launched, dtype):
    real, rounds, threads = np.dtype(dtype).type, 3, 32
    y = np.arange(2 * threads, dtype=dtype)
    begin = y.copy()
    launched("multiply_add", dtype, (2, 1, 1), threads, [y, real(1), real(1), np.int32(rounds)])
    steps = rounds * roofs.STEPS                         # each adds 1 to each chain
    assert np.array_equal(y, sum(begin + c + steps for c in range(roofs.CHAINS)))


@needs_compiler
@pytest.mark.parametrize("pieces", [1, 100, 4 * 32 * 3, 4 * 32 * 3 + 5])
def test_a_copy_copies_everything_and_nothing_else(launched, pieces):
    x = np.random.default_rng(0).standard_normal(4 * pieces + 8).astype(np.float32)
    y = np.full_like(x, np.nan)
    launched("copy", "float32", (-(-pieces // (roofs.AT_ONCE * 32)), 1, 1), 32, [y, x, np.int32(pieces)])
    assert np.array_equal(y[:4 * pieces], x[:4 * pieces]) and np.isnan(y[4 * pieces:]).all()


def test_roofs_are_operations_and_bytes_over_the_time_measured(monkeypatch):
    monkeypatch.setattr(roofs, "COPIED", 1 << 16)
    monkeypatch.setattr(roofs, "MATRIX", {"float32": 16, "float64": 8})
    grids = {}
    found = roofs.roofs(StandIn(seconds=(2e-3,), launched=lambda kernel, dtype, grid, *rest: grids.update({(kernel, dtype): grid})))
    threads = 2 * roofs.BLOCKS * roofs.THREADS           # two multiprocessors
    assert grids["multiply_add", "float32"] == (2 * roofs.BLOCKS, 1, 1)
    assert isclose(found["float32"].rate, threads * 2 * roofs.CHAINS * roofs.STEPS * roofs.ROUNDS["float32"] / 2e-3 / 1e9)
    assert isclose(found["copy"].rate, 2 * 65536 / 2e-3 / 1e9) and isclose(found["dgemm"].rate, 2 * 8**3 / 2e-3 / 1e9)
    assert found["float32"].nominal == 2 * 128 * 2 * 1 and found["float64"].nominal == 2 * 64 * 2       # lanes, multiprocessors, GHz
    assert isclose(found["copy"].nominal, 2 * 0.5 * 64 / 8) and found["float32"].seconds.count == roofs.REPEATS >= 30


# ---- rotation ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 1000, 4096, 10**6])
def test_sets_together_are_twice_the_cache_unless_they_are_too_many(size):
    count = rotation.sets_beyond(l2 := 1 << 16, size)
    assert 2 <= count <= rotation.MOST_SETS and (count * size >= 2 * l2 or count == rotation.MOST_SETS)


def test_a_run_is_one_launch_on_each_set_and_a_time_its_share():
    seen = []
    a = np.arange(512, dtype=np.float64)
    timing = rotation.rotated(StandIn(seconds=(4.0, 8.0)), lambda x, n: seen.append((x.ctypes.data, x.copy(), n)), [a, 7])
    assert timing.sets == 2 and timing.rotated == 2 * a.nbytes == 2 * StandIn.l2 and timing.graph
    assert len({place for place, _, _ in seen}) == 2 and all(np.array_equal(x, a) and n == 7 for _, x, n in seen)
    assert timing.seconds.least == 2.0 and timing.seconds.median == 4.0 and timing.seconds.count == rotation.REPEATS >= 30


# ---- kernels -----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def calls():
    return kernel_rows.recorded(SMALL)


def test_versions_are_those_the_kernels_text_defines():
    for operation in ("conv2d", "linear"):
        defined = set(re.findall(rf"{operation}_backward_w_v(\d+)", source(operation)))
        assert kernel_rows.versions(f"{operation}_forward") == sorted(map(int, defined)) and len(defined) > 1
    assert kernel_rows.versions("bias_forward") == [None]


def test_every_version_and_precision_of_every_call_is_a_row(calls):
    rows = list(kernel_rows.kernel_rows(StandIn(), LIMITS, calls))
    expected = {(call.kernel, version, dtype) for call, _ in calls for version in kernel_rows.versions(call.kernel)
                for dtype in ("float32", "float64")}
    assert {(row.kernel, row.version, row.dtype) for row in rows} == expected
    assert {row.kernel for row in rows} == {call.kernel for call, _ in calls} and all(row.right for row in rows)


def test_a_row_s_floor_is_the_roof_that_takes_longer(calls):
    call = next(call for call, _ in calls if call.kernel == "conv2d_forward" and call.arguments[0].shape[3] > 2)
    exact, tasks = kernel_rows.exact_of(call), 6
    row = kernel_rows.kernel_row(StandIn(seconds=(1e-3,)), LIMITS, call, exact, tasks, 2, "float32")
    y, x, w = call.arguments[:3]
    per_launch = 1e-3 / row.timing.sets
    assert row.flop == 2 * tasks * y[0].size * w[0, 0].size and row.bytes == 4 * tasks * (y[0].size + x[0].size + w[0].size)
    assert isclose(row.gflops, row.flop / per_launch / 1e9) and isclose(row.gbytes, row.bytes / per_launch / 1e9)
    floors = {"flop": row.flop / 100e9, "byte": row.bytes / 10e9}
    assert row.bound == max(floors, key=floors.get) and isclose(row.fraction, max(floors.values()) / per_launch)
    assert isclose(row.of_library, row.gflops / 80)
    double = kernel_rows.kernel_row(StandIn(seconds=(1e-3,)), LIMITS, call, exact, tasks, 2, "float64")
    assert double.bytes == 2 * row.bytes and isclose(double.of_library, double.gflops / 90) and double.tolerance < 1e-12


@pytest.mark.parametrize("name", ["conv2d_forward", "linear_backward_w", "batch_norm_backward"])
def test_a_wrong_kernel_is_a_row_that_is_not_right(calls, name):
    rows = kernel_rows.kernel_rows(StandIn(lambda version: wrong_by_a_thousandth(name)), LIMITS, [c for c in calls if c[0].kernel == name])
    assert not any(row.right for row in rows)


def test_a_kernel_wrong_in_the_last_task_alone_is_not_right(calls):
    right = kernels.reference()

    def wrong(y, *rest):
        right.conv2d_forward(y, *rest)
        if len(y) > kernel_rows.FEW:
            y[-1, 0, 0] = np.nextafter(y[-1, 0, 0], 1)
    rows = list(kernel_rows.kernel_rows(StandIn(lambda version: named_cuda(right, conv2d_forward=wrong)), LIMITS,
                                        [c for c in calls if c[0].kernel == "conv2d_forward"]))
    assert rows and all(row.error <= row.tolerance and not row.same and not row.right for row in rows)


def test_a_kernel_that_fails_is_a_row_and_the_others_go_on(calls):
    def broken(*arguments):
        raise RuntimeError("CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES\nmore")
    rows = list(kernel_rows.kernel_rows(StandIn(lambda version: named_cuda(kernels.reference(), bias_forward=broken)), LIMITS, calls))
    failed = [row for row in rows if isinstance(row, kernel_rows.Failed)]
    assert {row.kernel for row in failed} == {"bias_forward"} and len(rows) > len(failed)
    assert {row.reason for row in failed} == {"RuntimeError: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"} and not any(row.right for row in failed)


def test_a_device_that_answers_no_more_ends_the_table(calls):
    gpu = StandIn()
    gpu.wait = lambda: 1 / 0
    rows = list(kernel_rows.kernel_rows(gpu, LIMITS, calls))
    assert rows[-1].reason.startswith("the device answers no more: ZeroDivisionError")
    assert len(rows) == 1 + len(kernel_rows.versions(calls[0][0].kernel)) * len(kernel_rows.DTYPES)


def test_grown_arrays_repeat_the_first_tasks():
    a = np.arange(6).reshape(2, 3)
    assert np.array_equal(kernel_rows.grown(np, a, 5), a[[0, 1, 0, 1, 0]]) and kernel_rows.grown(np, a[:1], 5).shape == (1, 3)


# ---- cuDNN -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("layer", [rm.Conv2d(2, 3, 3, padding=1), rm.Conv2d(2, 3, 3, stride=2, padding="same")], ids=["even", "uneven"])
@pytest.mark.parametrize("kernel", grouped.KERNELS)
def test_the_library_is_asked_for_the_same_convolution(kernel, layer):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = rm.Sequential([rm.Conv2d(1, 2, 1), layer, rm.Flatten(), rm.Linear(3 * layer.output_shape((2, 6, 6))[1] ** 2, 2)],
                        input_shape=(1, 6, 6))
    call = next(c for c in record_calls("n", net, *examples(net, 2, 3), kernels.reference())
                if c.kernel == kernel and grouped.extents(c, 2).w[1] == 3)
    of, seat = grouped.extents(call, 2), grouped.Seat("cuDNN", "cpu")
    x, w, dy, padding = seat.arrays(of)
    value = seat.operation(kernel, of, padding, 2)(x, w, dy)
    assert seat.error(value, kernel, of, (x, w, dy), padding) < 1e-6
    assert seat.error(1.01 * value, kernel, of, (x, w, dy), padding) > 1e-3
    T, N, C = of.x[:3]

    def ours(a, channels):
        return np.moveaxis(a.double().numpy().reshape(N, T, channels, *a.shape[2:]), 1, 0)
    arrays = {"x": ours(x, C), "w": w.double().numpy().reshape(T, *of.w[1:]), "y": ours(dy, of.y[2])}
    borders = tuple((p, p) for p in padding)
    out = np.empty_like(arrays[{"conv2d_forward": "y", "conv2d_backward_x": "x", "conv2d_backward_w": "w"}[kernel]])
    given = [a for name, a in arrays.items() if a.shape != out.shape or name not in ("y" if kernel == "conv2d_forward" else kernel[-1])]
    order = given if kernel != "conv2d_backward_x" else [arrays["y"], arrays["w"]]
    kernels.reference().functions[kernel](out, *order[:2], of.stride, borders)
    theirs = value.double().numpy()
    theirs = theirs.reshape(out.shape) if kernel == "conv2d_backward_w" else np.moveaxis(theirs.reshape(N, T, *out.shape[2:]), 1, 0)
    assert np.abs(theirs - out).max() < 1e-5 * np.abs(out).max()
    assert torch.backends.cudnn.benchmark


# ---- whole meta-gradients ----------------------------------------------------------------------------------------

def test_launching_is_what_is_left_of_the_wall_time(monkeypatch):
    monkeypatch.setattr(engine, "graph", engine.eager)
    monkeypatch.setattr(whole, "walls", lambda gpu, run: [4e-3] * 3)
    found = whole.whole(StandIn(seconds=(1e-3,)), TINY)
    part = record.plain(found)
    assert found.exact < 1e-14 and found.replayed and part["product_over_gradient"] == 1.0
    assert part["launching"] == {"eager": 0.75, "graph": 0.75} and part["graph_refused"] is None


def test_without_a_graph_the_reason_is_kept():
    part = record.plain(whole.whole(StandIn(), TINY))
    if part["graph"] is None:
        assert part["graph_refused"] and part["launching"] is None


class Answering:
    """A worker whose answers are known: {method: answer, or an exception}."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def send(self, method, *arguments):
        self.asked.append(method)

    def receive(self):
        answer = self.answers[self.asked[-1]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask(self, method, *arguments):
        self.send(method, *arguments)
        return self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


@lru_cache
def reference_gradient(workload):
    return agreement.reference_gradient(workload)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """The reference's gradients are computed once."""
    monkeypatch.setattr(gpu_race, "reference_gradient", reference_gradient)
    monkeypatch.setattr(whole, "reference_gradient", reference_gradient)


def raced(**others):
    """{name: Result} of a race on the tiny workload: refmaml, who is right, and others."""
    right, few = reference_gradient(TINY), reference_gradient(agreement.few_tasks(TINY))
    good = {"gradient": few, "prepare": (right, 0.1), "turn": [0.01], "peak": 1}
    workers = {"refmaml": Answering(**good | {"gradient": few}), **{name: Answering(**good | change) for name, change in others.items()}}
    workers["refmaml"].answers["gradient"] = few
    options = race.Options("cuda", 0.0, 0.001, 0.0, tell=lambda text: None)
    results = gpu_race.gpu_race(TINY, list(workers), options, workers.get)
    return {r.name: r for r in results}


@pytest.fixture
def yardstick(monkeypatch):
    monkeypatch.setattr(gpu_race, "in_float64", lambda ours, workload: reference_gradient(workload))


def test_everybody_who_is_right_is_timed(yardstick):
    found = raced(**{"torch-graph-cuda": {}, "jax-vmap-cuda": {}})
    assert all(r.refused is None and r.seconds.median == 0.01 and r.peak == 1 for r in found.values())
    assert found["jax-vmap-cuda"].settings == {"convolution": "patches", "unroll": 1}


def test_a_wrong_peer_is_refused_and_one_in_tf32_is_told_apart(yardstick):
    right, few = reference_gradient(TINY), reference_gradient(agreement.few_tasks(TINY))
    found = raced(**{"torch-loop-cuda": {"gradient": 1.001 * few}, "torch-vmap-cuda": {"prepare": (1.2 * right, 0.1)},
                     "torch-graph-cuda-tf32": {"prepare": (1.2 * right, 0.1), "turn": [0.001]}})
    assert "float64 is 1.0e-03 off" in found["torch-loop-cuda"].refused and "float32 is 2.0e-01 off" in found["torch-vmap-cuda"].refused
    reduced = found["torch-graph-cuda-tf32"]
    assert reduced.refused is None and reduced.reduced and isclose(reduced.rounded, 0.2)
    part = record.meta_record(TINY, list(found.values()), 1000.0)
    assert part["over_the_fastest_peer"] is None and part["times_as_fast_as"] == {}          # nobody of equal precision is left
    assert isclose(part["of_roof"], TINY.gflop / 0.01 / 1000)


def test_refmaml_has_to_be_right_to_a_billionth_of_a_thousandth(yardstick):
    few = reference_gradient(agreement.few_tasks(TINY))
    close = gpu_race.after_exact(few, race.Result("refmaml", "", {}), few * (1 + 1e-11))
    assert "1.0e-11 off, expected at most 1e-12" in close.refused
    assert gpu_race.after_exact(few, race.Result("torch-loop-cuda", "", {}), few * (1 + 1e-11)).refused is None


@pytest.mark.parametrize("method", ["gradient", "prepare", "turn"])
def test_who_fails_is_out_and_the_others_go_on(yardstick, method):
    found = raced(**{"torch-compile-cuda": {method: WorkerError("torch-compile-cuda: no compiler")}, "torch-graph-cuda": {}})
    assert found["torch-compile-cuda"].refused == "torch-compile-cuda: no compiler" and found["torch-compile-cuda"].seconds is None
    assert found["torch-graph-cuda"].seconds is not None and found["refmaml"].seconds is not None


def test_who_leaves_takes_no_more_turns():
    assert by_turns({"stays": lambda s: [s], "leaves": lambda s: None}, 0.0, 0.5) == {"stays": [0.5] * 3}


class Sleeper:
    """What a process is that gives no answer."""

    def __init__(self, name, kernels):
        pass

    def doze(self, seconds):
        sleep(seconds)


def test_a_worker_that_gives_no_answer_within_its_limit_is_ended():
    with Worker("sleeper", limit=20, seat=Sleeper) as worker:
        worker.ask("doze", 0)
        worker.limit = 0.2
        with pytest.raises(WorkerError, match=r"sleeper: expected an answer within 0.2 s, got none"):
            worker.ask("doze", 600)
        worker.process.join(5)
        assert worker.process.exitcode == -9
        with pytest.raises(WorkerError, match="sleeper"):
            worker.ask("doze", 0)


@pytest.mark.parametrize("layer", [rm.Conv2d(2, 3, 3, padding=1), rm.Conv2d(2, 3, 3, stride=2, padding="same")], ids=["even", "uneven"])
def test_jax_s_own_convolution_is_the_one_of_patches(layer):
    pytest.importorskip("jax", reason="JAX is not installed")
    from refmaml.bench.contestants import jax_formulas
    from refmaml.oracles.jax_autodiff import float64, framework
    rng = np.random.default_rng(0)
    w = {"weight": rng.standard_normal((3, 2, 3, 3)), "bias": rng.standard_normal(3)}
    with float64():
        one, other = (np.asarray(f(framework(), layer, w, rng_x)) for rng_x in [rng.standard_normal((4, 6, 5, 2))]
                      for f in (jax_formulas.conv2d, jax_formulas.library_conv2d))
    assert one.shape == other.shape and np.abs(one - other).max() < 1e-14


def test_peers_on_a_gpu_have_names_of_their_own_and_say_their_precision():
    assert not set(peers("cuda")) & set(peers("cpu"))
    for name in peers("cuda"):
        contestant = find(name, "cuda")
        assert contestant.name == name and contestant.reduced == name.endswith(cuda_peers.TF32) and contestant.finish and contestant.peak
        assert set(contestant.choices(TINY)) <= {"convolution", "unroll"}


# ---- the command -------------------------------------------------------------------------------------------------

@pytest.fixture
def small(monkeypatch):
    """The bench in little: limits, nets and the pauses between files."""
    monkeypatch.setattr(roofs, "roofs", lambda gpu: LIMITS)
    monkeypatch.setattr(kernel_rows, "nets_on_gpu", lambda: SMALL)


def options(tmp_path, *only, workloads=("tiny",), peers=()):
    return Namespace(only=only, workloads=list(workloads), peers=list(peers), seconds="1e-9", limit="20", out=str(tmp_path))


def test_the_command_leaves_a_record_of_kernels_and_of_itself(tmp_path, small, capsys):
    assert bench_gpu.run_on_gpu(options(tmp_path, "kernels", "ourselves"), StandIn()) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {"schema", "versions", "machine", "device", "kernel_set", "absent", "limits", "device_after_limits", "kernels", "ourselves",
            "seconds"} == set(found)
    row = found["kernels"][0]
    assert set(row) == {*kernel_rows.KernelRow._fields, "right"} and set(row["timing"]) == set(rotation.Rotation._fields)
    assert set(row["timing"]["seconds"]) == set(Spread._fields) and found["ourselves"][0]["exact"] < 1e-12
    printed = capsys.readouterr().out
    assert "conv2d_forward v1" in printed and "float64 is" in printed and "WRONG" not in printed


def test_a_wrong_kernel_makes_the_status_1_and_is_marked(tmp_path, small, capsys):
    gpu = StandIn(lambda version: wrong_by_a_thousandth("conv2d_backward_w"))
    assert bench_gpu.run_on_gpu(options(tmp_path, "kernels"), gpu) == 1
    found = json.loads((tmp_path / "bench.json").read_text())
    assert {row["kernel"] for row in found["kernels"] if not row["right"]} == {"conv2d_backward_w"}
    assert "WRONG" in capsys.readouterr().out


def test_a_float64_gradient_beyond_a_millionth_of_a_millionth_makes_the_status_1(tmp_path, small):
    gpu = StandIn(lambda version: wrong_by_a_thousandth("conv2d_backward_w"))
    assert bench_gpu.run_on_gpu(options(tmp_path, "ourselves"), gpu) == 1


def test_what_was_measured_before_the_bench_was_stopped_is_in_the_file(tmp_path, small, monkeypatch):
    monkeypatch.setattr(bench_gpu, "SECONDS_BETWEEN_FILES", 0)
    rows = iter([1, 2, 3])

    def stopping(*arguments):
        yield next(kernel_rows_of(*arguments))
        raise KeyboardInterrupt
    kernel_rows_of = kernel_rows.kernel_rows
    monkeypatch.setattr(kernel_rows, "kernel_rows", stopping)
    with pytest.raises(KeyboardInterrupt):
        bench_gpu.run_on_gpu(options(tmp_path, "kernels"), StandIn())
    assert len(json.loads((tmp_path / "bench.json").read_text())["kernels"]) == 1 and next(rows)


def test_a_peer_that_cannot_run_here_is_refused_and_no_error(tmp_path, small, yardstick, monkeypatch):
    monkeypatch.setattr(bench_gpu, "OURS", ("refmaml",))
    right = {"gradient": reference_gradient(agreement.few_tasks(TINY)), "peak": 5,
             "prepare": (reference_gradient(TINY), 0.1), "turn": [0.5]}
    import refmaml.bench.worker as workers
    monkeypatch.setattr(workers, "Worker", lambda name, *rest: Answering(**right) if name == "refmaml" else
                        Answering(gradient=WorkerError(f"{name}: no GPU")))
    monkeypatch.setattr("refmaml.bench.contestants.missing", lambda contestant: None)
    assert bench_gpu.run_on_gpu(options(tmp_path, "meta", peers=["torch-graph-cuda"]), StandIn()) == 0
    part, = json.loads((tmp_path / "bench.json").read_text())["meta"]
    assert [r["refused"] for r in part["results"]] == [None, "torch-graph-cuda: no GPU"] and part["results"][0]["peak"] == 5


@pytest.mark.parametrize(("given", "message"), [
    (["--only", "startup"], "--only: expected some of kernels, ourselves, meta with --kernels cuda, got startup"),
    (["--peers", "higher"], f"--peers: expected some of {', '.join(cuda_peers.NAMES)}, got higher"),
    (["--limit", "0"], "--limit: expected a finite number > 0, got '0'")])
def test_bad_input_is_one_line(given, message, capsys, monkeypatch):
    monkeypatch.setattr("refmaml.cli.bench.kernel_set", lambda name: None)
    assert main(["bench", "--kernels", "cuda", *given]) == 2
    assert capsys.readouterr().err == f"refmaml: {message}\n"
