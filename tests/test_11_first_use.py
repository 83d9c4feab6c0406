"""The first use of the CPU kernels: what is compiled, how often, by which process."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

import small_functions  # noqa: E402 (needs numba)

import refmaml as rm  # noqa: E402
from refmaml.kernels.numba_runtime import compile_lock, helper_process  # noqa: E402
from refmaml.kernels.numba_runtime.call_graph import externals_called  # noqa: E402
from refmaml.kernels.numba_runtime.compilation import LOAD, TRY, WAIT, lock_path  # noqa: E402
from refmaml.kernels.numba_runtime.compile_lock import CompileLock  # noqa: E402
from refmaml.kernels.numba_runtime.external_functions import External  # noqa: E402
from refmaml.kernels.numba_runtime.preparation import prepare, with_called  # noqa: E402

fcntl = pytest.importorskip("fcntl", reason="this system has no file locks")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder as Numba's cache."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def forgotten(cache, monkeypatch):
    """The small functions as in a new process with an empty cache."""
    for function in small_functions.ALL:
        monkeypatch.setattr(function, "python", {})
    return small_functions.ALL


@pytest.fixture
def in_new_process(tmp_path):
    """in_new_process(code): a new Python process; its cache is this test's folder."""
    with ExitStack() as processes:

        def start(code):
            path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return process

        yield start


def computed(precision="float32"):
    """What the small functions compute from 3: 2 * 3 + 3."""
    a = np.zeros(3, precision)
    small_functions.run.external.python[precision](a, a.dtype.type(3))
    return a.tolist() == [9, 9, 9]


def compiled_files(cache):
    return sorted(path.name.rpartition("_")[0] for path in cache.rglob("*.nbc"))


def remaining(cache):
    """Files that no compilation should leave behind."""
    return [path for path in cache.rglob("*") if path.is_file() and ".nb" not in path.name]


def test_the_calls_of_a_function_are_prepared_with_it_but_not_those_on_demand(forgotten, cache):
    prepare([small_functions.run.external], "float32", alone=True)
    assert compiled_files(cache) == [f"small_functions.{name}" for name in ("fill", "run", "scale")]
    prepare([small_functions.shift.external], "float32", alone=True)
    assert computed() and len(compiled_files(cache)) == 4 and remaining(cache) == []
    assert not any(function.prepared("float64") for function in forgotten)


def test_a_function_that_is_not_prepared_ends_the_process_with_a_line(in_new_process):
    code = """import numpy as np, small_functions as small
from refmaml.kernels.numba_runtime.preparation import prepare
prepare([small.run.external], "float32", alone=True)
small.run.external.python["float32"](np.zeros(3, "f"), np.float32(3))"""
    done = in_new_process(code)
    assert done.wait(120) == -signal.SIGABRT
    assert "called one that is not prepared" in done.stderr.read()


def test_every_function_on_demand_that_a_whole_net_calls_is_listed_as_needed():
    from refmaml.kernels.whole_net import columns, cpu, needs, operations

    called = [cpu.run.external]
    for function in called:
        called += [f for f in externals_called(function.function) if f not in called]
    window = operations.NormActPool(1, 2, 2, 1, 1, 0.1, 0, 0, window=(2, 2))
    pixel = ((1, 1), (1, 1), (0, 0))
    grouped = operations.Convolution(2, 1, 1, 2, 1, 1, *pixel, 0, groups=2)
    wide = operations.Convolution(32, 14, 14, 32, 14, 14, (3, 3), (1, 1), (1, 1), 0)
    own = (operations.NormActPool, operations.Convolution)
    others = [tuple.__new__(kind) for kind in columns.KINDS if kind not in own]
    net = (window, window._replace(window=(1, 1)), grouped, wide, *others)
    nets = [
        needs.needed(net, loss, what, 2, 1)
        for loss in (operations.CROSS_ENTROPY, operations.MEAN_OF_SQUARES)
        for what in (cpu.PRIMAL, cpu.HESSIAN, cpu.GAUSS_NEWTON, cpu.UNROLLED)
    ]
    listed = {function for needed in nets for function in with_called(needed)}
    assert {f.name for f in called} == {f.name for f in listed}


def test_what_a_function_encloses_has_the_same_key_in_the_cache_of_every_process():
    """The key contains the pickled closure, which differs for compiled functions."""
    from refmaml.kernels.whole_net import needs

    passes = (needs.UNPOOLED, needs.POOLED, *needs.PASSES.values(), *needs.LOSSES.values())
    functions = with_called([call.external for calls in passes for call in calls])
    enclosed = [c.cell_contents for f in functions for c in f.function.__closure__ or ()]
    assert enclosed and all(isinstance(value, bool | int) for value in enclosed)


def test_a_net_needs_only_what_its_layers_and_the_call_use():
    from refmaml.kernels.whole_net import cpu, needs

    net = rm.conv4(kernels="cpu").whole_net((1, 28, 28), np.dtype("f"))
    kinds = [type(op) for op in net.operations]
    names = [
        {f.name.removeprefix("refmaml.kernels.") for f in needs.needed(net.operations, net.loss, w)}
        for w in (cpu.PRIMAL, cpu.HESSIAN)
    ]
    assert len(kinds) == len(net.operations) and "norm_act_pool.cpu.forward_unpooled" in names[0]
    assert "norm_act_pool.r_passes.r_forward_unpooled" not in names[0]
    assert "norm_act_pool.r_passes.r_forward_unpooled" in names[1]
    assert not any("activation" in name or "squared" in name for name in names[0] | names[1])


# ---- several processes ---------------------------------------------------------------


BOTH = """import json, sys, numba, small_functions as small
from numba.core import event
from refmaml.kernels.numba_runtime.preparation import prepare
names = []

class Listener(event.Listener):
    def on_start(self, started):
        names.append(started.data["dispatcher"].py_func.__name__)

    def on_end(self, ended):
        pass

event.register("numba:compile", Listener())
print("ready", flush=True)
sys.stdin.readline()
prepare(small.ALL, "float32", alone=True)
print(json.dumps(names))"""


def test_two_processes_at_once_compile_each_function_once(in_new_process, tmp_path):
    both = [in_new_process(BOTH) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    names = [json.loads(process.communicate(timeout=300)[0]) for process in both]
    assert sorted(name.rpartition("_")[0] for n in names for name in n) == [
        "fill",
        "run",
        "scale",
        "shift",
    ]
    assert remaining(tmp_path) == []


def lock_of(function, cache):
    """The lock that a process has while it compiles a function."""
    from refmaml.kernels.numba_runtime.compilation import SafeCache, code_checksum, renamed

    return SafeCache(renamed(function.function, code_checksum()), None).lock.path


def test_a_function_that_another_process_compiles_is_waited_for_only_at_the_end(forgotten, cache):
    fill = forgotten[1]
    other = CompileLock(lock_of(fill, cache))
    assert other.acquire(wait=False)
    assert not fill.compile("float32", 1, 1, LOAD) and not fill.compile("float32", 1, 1, TRY)
    other.release()
    assert fill.compile("float32", 1, 1, TRY) and remaining(cache) == []


def test_the_lock_of_a_killed_process_is_free(forgotten, cache, in_new_process):
    path = lock_of(forgotten[1], cache)
    code = f"""from refmaml.kernels.numba_runtime.compile_lock import CompileLock
lock = CompileLock({str(path)!r})
assert lock.acquire(wait=False)
print("locked", flush=True)
input()"""
    holder = in_new_process(code)
    assert holder.stdout.readline() == "locked\n"
    assert not forgotten[1].compile("float32", 1, 1, TRY)
    holder.kill()
    holder.wait()
    assert forgotten[1].compile("float32", 1, 1, WAIT)


def test_a_lock_that_is_never_given_up_is_waited_for_only_so_long(forgotten, cache, monkeypatch):
    monkeypatch.setattr(compile_lock, "LONGEST", 0.1)
    other = CompileLock(lock_of(forgotten[1], cache))
    assert other.acquire(wait=False)
    assert forgotten[1].compile("float32", 1, 1, WAIT)
    other.release()


def test_a_file_system_without_locks_costs_only_time(forgotten, cache, monkeypatch):
    def refused(*rest):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(compile_lock.fcntl, "flock", refused)
    prepare(forgotten, "float32", alone=True)
    assert computed()


def test_a_folder_in_which_no_lock_can_be_made_costs_only_time(forgotten, cache):
    Path(lock_of(forgotten[1], cache)).mkdir(parents=True)
    prepare(forgotten, "float32", alone=True)
    assert computed() and len(compiled_files(cache)) == 4


# ---- the helper process --------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """The helper processes that are started, on one core too and for few functions."""
    processes, start = [], subprocess.Popen

    def recorded(*args, **options):
        processes.append(start(*args, **options))
        return processes[-1]

    monkeypatch.setattr(helper_process, "FEWEST", 1)
    monkeypatch.setattr(helper_process, "cores", lambda: 2)
    monkeypatch.setattr(helper_process.subprocess, "Popen", recorded)
    return processes


def test_a_helper_compiles_into_the_same_cache(forgotten, cache, started):
    with helper_process.helper(forgotten, "float64") as process:
        process.wait(300)
        assert process.returncode == 0
    assert [function.compile("float64", 1, 1, LOAD) for function in forgotten] == [True] * 4
    assert computed("float64")


@pytest.mark.parametrize(
    "code", ["raise SystemExit(3)", "import time; time.sleep(600)", "import os; os.abort()", "?"]
)
def test_a_helper_that_fails_or_hangs_costs_only_time(code, forgotten, cache, started, monkeypatch):
    monkeypatch.setattr(helper_process, "CODE", code)
    prepare(forgotten, "float32")
    assert computed() and len(started) == 1 and started[0].returncode is not None


@pytest.mark.parametrize("executable", ["", None, "/nowhere/python", "/bin/true", "/x/blender"])
def test_without_a_python_to_start_one_process_compiles(
    executable, forgotten, cache, started, monkeypatch
):
    monkeypatch.setattr(sys, "executable", executable)
    prepare(forgotten, "float32")
    assert computed() and started == []


def test_an_interrupted_compilation_leaves_no_helper(forgotten, cache, started, monkeypatch):
    def interrupted(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(helper_process, "CODE", "import time; time.sleep(600)")
    compile_one = External.compile
    monkeypatch.setattr(
        External,
        "compile",
        lambda self, p, n, t, effort: (
            compile_one(self, p, n, t, effort) if effort == LOAD else interrupted()
        ),
    )
    with pytest.raises(KeyboardInterrupt):
        prepare(forgotten, "float32")
    assert started[0].returncode is not None


ORPHAN = """import sys, time, small_functions as small
from refmaml.kernels.numba_runtime import helper_process
helper_process.CODE = '''import threading, time
from refmaml.kernels.numba_runtime.helper_process import end_with_parent
threading.Thread(target=end_with_parent, daemon=True).start()
print("up", flush=True)
time.sleep(600)'''
helper_process.cores = lambda: 2
helper_process.subprocess.DEVNULL = None  # the helper inherits stdout
process = helper_process.start(small.ALL, "float32")
print(process.pid, flush=True)
time.sleep(600)"""


def test_a_helper_ends_with_its_parent(in_new_process):
    parent = in_new_process(ORPHAN)
    lines = sorted(parent.stdout.readline() for _ in range(2))
    pid = int(lines[0])
    assert lines[1] == "up\n"
    parent.kill()
    parent.wait()
    deadline = monotonic() + 60
    while running(pid) and monotonic() < deadline:
        sleep(0.05)
    assert not running(pid)


def running(pid):
    """Whether a process runs; one that has ended may still be in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_lock_is_beside_the_cache_of_its_function(cache):
    path = lock_path(str(cache), small_functions.fill.external.function)
    assert Path(path).parent == cache and path.endswith(".lock")
