"""Without CuPy, a GPU or a matching driver, the error is one line."""

import re
import sys
from types import SimpleNamespace

import pytest
from cuda_shim.memory import OutOfMemoryError

from refmaml import kernels
from refmaml.cli import main

# ---- no CuPy or no GPU ---------------------------------------------------------------


def gpu_present():
    try:
        return bool(kernels.cuda())
    except (ImportError, RuntimeError):
        return False


@pytest.fixture
def no_gpu():
    if gpu_present():
        pytest.skip("there is a GPU: this test needs a machine without one")


def test_without_cupy_or_a_gpu_the_set_raises_in_one_line(no_gpu):
    with pytest.raises((ImportError, RuntimeError), match="the cuda kernels") as raised:
        kernels.cuda()
    assert "\n" not in str(raised.value) and "refmaml.kernels.cpu()" in str(raised.value)


@pytest.mark.parametrize(
    "command",
    [["verify"], ["train", "--data", "sinusoid", "--out", "{out}"], ["bench", "--out", "{out}"]],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("name", ["cuda", "numba_cuda"])
def test_without_a_gpu_every_command_prints_one_line(no_gpu, command, name, tmp_path, capsys):
    assert main([word.format(out=tmp_path / "out") for word in command] + ["--kernels", name]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and re.match(
        f"refmaml: --kernels: the {name} kernels( need |: expected a GPU, got )", line
    ), line


def test_a_driver_that_finds_no_gpu_is_named_in_one_line(monkeypatch):
    class CUDARuntimeError(RuntimeError):
        pass

    def none():
        raise CUDARuntimeError(
            "cudaErrorInsufficientDriver: CUDA driver version is insufficient\nmore"
        )

    runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError, getDeviceCount=none)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime)))
    with pytest.raises(
        RuntimeError,
        match="expected a GPU, got cudaErrorInsufficientDriver.*insufficient; "
        "a newer driver, .*take",
    ):
        kernels.cuda()
    runtime.getDeviceCount = lambda: 0
    with pytest.raises(RuntimeError, match="expected a GPU, got none"):
        kernels.cuda()


# ---- CuPy, the driver and NVRTC do not fit each other --------------------------------


@pytest.mark.parametrize(
    "message,remedy",
    [
        (
            "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA "
            "runtime version",
            "a newer driver, or the CuPy for",
        ),
        (
            "CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with an "
            "unsupported toolchain.",
            "NVRTC is newer than",
        ),
        (
            "cudaErrorUnsupportedPtxVersion: the provided PTX was compiled with an "
            "unsupported toolchain.",
            "NVRTC is newer than",
        ),
        (
            "CuPy failed to load libnvrtc.so.13: OSError: libnvrtc.so.13: cannot open "
            "shared object file",
            "NVRTC compiles the kernels: pip",
        ),
        (
            "CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available for execution on "
            "the device",
            "this CuPy or NVRTC does not know",
        ),
        (
            "Out of memory allocating 512 bytes (allocated so far: 0 bytes).",
            "something else holds the GPU's memory",
        ),
        ("cudaErrorNoDevice: no CUDA-capable device is detected", ""),
    ],
)
@pytest.mark.parametrize("where", ["getDeviceCount", "empty", "RawModule"])
def test_an_unusable_gpu_is_one_line_before_any_work(cupy, monkeypatch, where, message, remedy):
    def fail(*args, **options):
        raise (OutOfMemoryError if "memory" in message else cupy.cuda.runtime.CUDARuntimeError)(
            f"{message}\nmore of it"
        )

    monkeypatch.setattr(cupy.cuda.runtime if where == "getDeviceCount" else cupy, where, fail)
    with pytest.raises(RuntimeError) as raised:
        kernels.cuda()
    text = str(raised.value)
    assert "\n" not in text and text.startswith(
        f"the cuda kernels: expected a GPU, got {message}; {remedy}"
    )
    assert text.endswith("take refmaml.kernels.cpu()")


def test_a_gpu_that_computes_wrongly_is_refused(cupy, monkeypatch):
    monkeypatch.setattr(
        cupy,
        "run_kernel",
        lambda name, dtype, grid, threads, arguments, shared: arguments[0].fill(8),
    )
    with pytest.raises(RuntimeError, match="expected 3 \\* 3 = 9 from the GPU, got 8"):
        kernels.cuda()


def test_the_error_for_a_cupy_that_does_not_import_is_one_line_with_the_reason(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "cupy":
                raise ImportError(
                    "CuPy is not correctly installed.\n\n"
                    "libcudart.so.13: cannot open shared object file"
                )

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        ImportError,
        match="^the cuda kernels need a cupy that can be imported, "
        "got CuPy is not correctly[^\n]*$",
    ):
        kernels.cuda()


def test_without_cupy_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        ImportError, match=r"^the cuda kernels need cupy: pip install 'refmaml\[cuda13\]'[^\n]*$"
    ):
        kernels.cuda()


def test_a_missing_gpu_is_named(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda, "runtime", SimpleNamespace(getDeviceCount=lambda: 0))
    with pytest.raises(RuntimeError, match="expected a GPU, got none; take"):
        kernels.cuda()
