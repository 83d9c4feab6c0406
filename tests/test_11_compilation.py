"""Compiling the Numba kernels: a faulty cache, forked processes, progress on stderr."""

import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from shutil import copytree
from time import sleep

import pytest

numba = pytest.importorskip("numba", reason="the cpu kernels need numba, which is not installed")

from numba.core import caching  # noqa: E402 (needs numba)

from refmaml import kernels  # noqa: E402
from refmaml.kernels.numba_runtime import compilation, progress  # noqa: E402
from refmaml.kernels.numba_runtime.compilation import compile_function  # noqa: E402


def triple(a):
    return 3 * a


def compiled_triple():
    """`triple`, compiled or loaded; whether it was loaded."""
    run = compile_function(triple, "float64(float64)", "triple")
    assert run(2.0) == 6.0
    return bool(run.stats.cache_hits)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder as Numba's cache."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def files(cache, suffix):
    found = sorted(cache.rglob(f"*{suffix}"))
    assert found
    return found


def test_a_function_is_loaded_from_the_cache_the_second_time(cache):
    assert [compiled_triple() for _ in range(3)] == [False, True, True]


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_byte(file):
    data = bytearray(file.read_bytes())
    data[-len(data) // 3] ^= 0x55
    file.write_bytes(data)


def overwrite(file):
    file.write_bytes(b"not a pickle")


def pickle_something_else(file):
    file.write_bytes(pickle.dumps(["another", "object"]))


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", [truncate, flip_a_byte, overwrite, pickle_something_else])
def test_a_damaged_cache_is_compiled_again_and_replaced(cache, damage, suffix):
    compiled_triple()
    for file in files(cache, suffix):
        damage(file)
    assert [compiled_triple() for _ in range(2)] == [False, True]


def test_a_cache_without_space_or_permission_is_ignored(cache, monkeypatch):
    def full(*rest):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_open_for_write", full)
    assert [compiled_triple() for _ in range(2)] == [False, False]


def test_a_cache_that_cannot_be_read_is_ignored(cache, monkeypatch):
    compiled_triple()
    for file in files(cache, ".nbi"):
        file.unlink()
        file.mkdir()
    assert [compiled_triple() for _ in range(2)] == [False, False]


def test_without_a_folder_for_the_cache_functions_are_compiled(monkeypatch):
    """A read-only installation and a read-only home: Numba finds no folder."""
    monkeypatch.setattr(compilation.ChecksummedMachineCode, "_locator_classes", [])
    assert [compiled_triple() for _ in range(2)] == [False, False]


def test_a_cache_of_another_processor_is_not_used(cache, monkeypatch):
    codegen = type(numba.core.registry.cpu_target.target_context.codegen())
    with monkeypatch.context() as other:
        other.setattr(codegen, "magic_tuple", lambda self: ("another", "processor"))
        assert not compiled_triple()
    assert [compiled_triple() for _ in range(2)] == [False, True]


def change(file):
    file.write_text(file.read_text() + "# changed\n")


def test_a_change_in_any_file_that_is_compiled_into_kernels_changes_their_names(tmp_path):
    """Numba sees changes in the file of a kernel, but not in the functions it calls."""
    root = Path(compilation.__file__).parents[1]
    copytree(root, tmp_path / "kernels", ignore=lambda *rest: {"__pycache__"})
    module = tmp_path / "kernels" / "numba_runtime" / "compilation.py"

    def checksum():
        names = {"__file__": str(module), "__name__": "copied"}
        exec(compile(module.read_text(), str(module), "exec"), names)
        return names["code_checksum"]()

    before = checksum()
    for file in (
        "whole_net/passes.py",
        "norm_act_pool/formulas.py",
        "conv2d/task_product.py",
        "numba_runtime/simd.py",
        "pooling/cpu.py",
        "activation/functions.py",
    ):
        change(tmp_path / "kernels" / file)
        after = checksum()
        assert after != before, file
        before = after
    change(tmp_path / "kernels" / "batch_norm" / "reference.py")
    assert checksum() == before


# ---- progress ------------------------------------------------------------------------


@pytest.fixture
def quick_lines(monkeypatch):
    """Progress lines after a hundredth of a second instead of a second."""
    monkeypatch.setattr(progress, "FIRST_LINE", 0.01)
    monkeypatch.setattr(progress, "NEXT_LINE", 0.01)
    monkeypatch.delenv("REFMAML_QUIET", raising=False)


def slow_compilation(seconds=0.3):
    with progress.Progress("conv2d.cpu.forward", 2, 8) as report:
        report.start()
        sleep(seconds)


def test_a_long_compilation_is_reported_on_stderr(quick_lines, capsys):
    slow_compilation()
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") >= 2
    line = err.splitlines()[0]
    assert line.startswith("refmaml: compiling conv2d.cpu.forward ") and "function 2 of 8" in line
    assert " s so far" in line and "cache" in line


def test_no_line_is_printed_for_a_function_that_the_cache_has(cache, quick_lines, capsys):
    compiled_triple()
    for thread in threading.enumerate():  # one may be about to print its last line
        if thread.name == "refmaml-progress":
            thread.join()
    capsys.readouterr()
    assert compiled_triple()
    sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_short_compilation_is_not_reported(monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST_LINE", 60.0)
    slow_compilation(0.05)
    assert capsys.readouterr().err == ""


def test_refmaml_quiet_turns_the_report_off(quick_lines, monkeypatch, capsys):
    monkeypatch.setenv("REFMAML_QUIET", "1")
    slow_compilation()
    assert capsys.readouterr().err == ""


class Broken:
    def write(self, text):
        raise OSError(5, "Input/output error")

    flush = write


@pytest.mark.parametrize("stream", [None, Broken()])
def test_a_broken_stderr_is_ignored(stream, quick_lines, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", stream)
    progress.print_line("a line")
    slow_compilation()


# ---- the environment -----------------------------------------------------------------


def run_python(script, timeout=300, **environment):
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_without_numbas_compiler_the_cpu_kernels_say_so_in_one_line():
    result = run_python(
        "import refmaml as rm\ntry: rm.kernels.cpu()\nexcept RuntimeError as error: print(error)",
        NUMBA_DISABLE_JIT="1",
    )
    assert result.stdout == (
        "the cpu kernels: expected Numba's compiler, got NUMBA_DISABLE_JIT=1; "
        "unset it, or take refmaml.kernels.reference()\n"
    ), result.stderr


FORK = """
import os, signal
import numpy as np
import refmaml as rm

net = rm.mlp((30, 200, 30), kernels=rm.kernels.cpu())
rng = np.random.default_rng(0)
w, x, y = net.init(0)[None], rng.standard_normal((8, 400, 30)), rng.standard_normal((8, 400, 30))
by_kernel = net.with_kernels(net.kernels.replace(name="cpu"))

def bits():
    return [n.primal(w, x, y).grad.tobytes() for n in (net, by_kernel)]

before = bits()
import numba
assert numba.threading_layer()  # the parent has started Numba's threads
child = os.fork()
if child == 0:
    signal.alarm(240)  # a child that waits for lost threads would never end
    os._exit(0 if bits() == before else 3)
print(os.waitpid(child, 0)[1], bits() == before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_the_same_bits_on_threads_of_its_own():
    """A child has no threads; Numba terminates one that uses OpenMP after a fork."""
    result = run_python(FORK, NUMBA_NUM_THREADS="4", OMP_WAIT_POLICY="passive")
    assert result.stdout.split() == ["0", "True"], result.stdout + result.stderr


def test_cpu_kernels_can_be_made():
    assert kernels.cpu().name == "cpu"
