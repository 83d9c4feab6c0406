"""Kernel sets: operations found by their folders, missing operations, copies, names."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refmaml import kernels
from refmaml.kernels import discovery
from refmaml.kernels.bias import reference as bias
from refmaml.kernels.kernel_set import MissingKernelError

HERE = Path(__file__).parent
TOY = '''
__all__ = ["toy_double"]

def toy_double({launch}y, x):
    """y = 2 x."""
    y[...] = 2 * x
'''


class RecordingDevice:
    """A device for `kernels.cuda` that records launches instead of running them."""

    xp = np

    def __init__(self):
        self.launched = []

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def launch(self, operation, kernel, dtype, grid, threads, arguments, shared):
        self.launched.append(kernel)


@pytest.fixture
def add_operation(tmp_path, monkeypatch):
    """add_operation(implementations, init) makes the operation `toy` in a folder."""

    def add(implementations, init=""):
        folder = tmp_path / "toy"
        folder.mkdir()
        (folder / "__init__.py").write_text(init)
        for name in implementations:
            launch = "launch, " if name == "cuda" else ""
            (folder / f"{name}.py").write_text(TOY.format(launch=launch))
        monkeypatch.setattr(kernels, "__path__", [*kernels.__path__, str(tmp_path)])

    yield add
    for name in [name for name in sys.modules if name.startswith("refmaml.kernels.toy")]:
        del sys.modules[name]
    vars(kernels).pop("toy", None)


# ---- operations are found by their folders -------------------------------------------


def test_every_folder_with_a_reference_is_an_operation_or_a_fusion():
    found = {file.parent.name for file in (HERE.parent / "kernels").glob("*/reference.py")}
    assert set(discovery.operations()) | set(discovery.fusions()) == found
    assert discovery.fusions() == ("norm_act_pool",)


def test_the_reference_and_cpu_sets_have_no_fusion_and_the_cuda_set_has_all():
    names = set(kernels.reference().functions)
    fused = set(discovery.collect("reference", discovery.fusions())[0])
    assert fused and not names & fused
    assert set(kernels.cpu().functions) == names
    assert set(kernels.cuda(RecordingDevice()).functions) == names | fused


def test_a_new_folder_is_a_new_operation_of_every_set_that_implements_it(add_operation):
    add_operation(["reference", "cuda"])
    assert "toy" in discovery.operations()
    for k in (kernels.reference(), kernels.cuda(RecordingDevice())):
        k.toy_double(y := np.empty(2), np.ones(2))
        assert y.tolist() == [2, 2] and k.missing == ()


def test_a_new_fusion_belongs_to_the_sets_with_fusions_only(add_operation):
    add_operation(["reference", "cuda"], 'FUSES = ("bias", "activation")\n')
    assert discovery.fusions() == ("norm_act_pool", "toy")
    assert "toy_double" in kernels.cuda(RecordingDevice()).functions
    for k in (kernels.reference(), kernels.cpu()):
        assert "toy_double" not in k.functions and k.missing == ()


def test_no_set_misses_an_operation_of_the_project():
    sets = kernels.reference(), kernels.cpu(), kernels.cuda(RecordingDevice())
    assert all(k.missing == () for k in sets)
    assert discovery.collect("numba_cuda", discovery.folders())[1] == {}


# ---- an operation that a set lacks ---------------------------------------------------


@pytest.mark.parametrize("threads", [None, 1])
def test_on_a_cpu_the_reference_computes_an_operation_that_the_set_lacks(add_operation, threads):
    add_operation(["reference"])
    k = kernels.cpu(threads)
    k.toy_double(y := np.empty(2), np.ones(2))
    assert y.tolist() == [2, 2] and k.missing == ("toy",)
    assert k.replace(bias_forward=bias.bias_forward).missing == ("toy",)


def test_on_a_gpu_a_kernel_of_a_missing_operation_is_refused_in_one_line(add_operation):
    add_operation(["reference"])
    device = RecordingDevice()
    k = kernels.cuda(device)
    assert k.missing == ("toy",) and not hasattr(k, "toy_double")
    for candidate in (k, k.replace(bias_forward=bias.bias_forward)):
        with pytest.raises(MissingKernelError) as raised:
            _ = candidate.toy_double
        assert str(raised.value) == (
            "kernels: expected a set with the kernel toy_double, got 'cuda', "
            "which lacks the operation toy; take refmaml.kernels.cpu()"
        )
    assert device.launched == []


# ---- copies, pickles, other processes ------------------------------------------------


def test_a_copy_of_a_set_is_the_set_itself_because_only_its_caches_change():
    k = kernels.cpu(threads=1)
    assert copy.copy(k) is k and copy.deepcopy([k])[0] is k


@pytest.mark.parametrize(
    "k",
    [
        kernels.reference(),
        kernels.cpu(threads=1),
        kernels.cpu().replace("other", bias_forward=bias.bias_forward),
        kernels.KernelSet("own", {"bias_forward": bias.bias_forward}),
    ],
    ids=["reference", "cpu", "replaced", "own"],
)
def test_a_pickled_set_is_made_again(k):
    again = pickle.loads(pickle.dumps(k))
    assert again is not k and again.name == k.name and again.xp is k.xp
    assert list(again.functions) == list(k.functions)
    assert (again.whole_net is None) == (k.whole_net is None)
    if k.name in ("other", "own"):
        assert again.bias_forward is bias.bias_forward


def test_modules_among_the_arguments_are_pickled_by_their_names():
    k = kernels.cuda(xp=np, device=RecordingDevice(), version=1)
    again = pickle.loads(pickle.dumps(k))
    assert again.xp is np and again.name == "cuda"
    assert again.bias_forward.args[0].version == 1


def test_a_function_without_an_importable_name_cannot_be_pickled():
    k = kernels.reference().replace(bias_forward=lambda y, b: None)
    with pytest.raises((pickle.PicklingError, AttributeError), match="<lambda>"):
        pickle.dumps(k)


CHILD = """
import pickle, sys
import numpy as np
k = pickle.load(sys.stdin.buffer)
rng = np.random.default_rng(0)
y, b = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 4))
k.bias_forward(y, b)
sys.stdout.write(y.tobytes().hex())
"""


@pytest.mark.parametrize("k", [kernels.reference(), kernels.cpu(1)], ids=["reference", "cpu"])
def test_a_set_sent_to_another_process_computes_the_same_bits(k):
    rng = np.random.default_rng(0)
    y, b = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 4))
    k.bias_forward(y, b)
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=pickle.dumps(k), capture_output=True, timeout=300
    )
    assert child.returncode == 0, child.stderr.decode()
    assert bytes.fromhex(child.stdout.decode()) == y.tobytes()


# ---- names and arrays ----------------------------------------------------------------


def test_sets_are_made_by_name_and_returned_as_they_are():
    assert kernels.by_name("reference").name == "reference"
    assert kernels.by_name("cpu").name == kernels.by_name("auto").name == "cpu"
    assert kernels.by_name(k := kernels.reference()) is k


@pytest.mark.parametrize("given", ["CPU", "by_name", None, 3, ["cpu"]])
def test_what_is_neither_a_name_nor_a_set_is_refused_in_one_line(given):
    with pytest.raises(ValueError) as raised:
        kernels.by_name(given)
    assert str(raised.value) == (
        "kernels: expected a kernel set or one of auto, cpu, cuda, numba_cuda, reference, "
        f"got {given!r}"
    )


def test_an_unknown_kernel_is_named():
    k = kernels.reference()
    with pytest.raises(AttributeError, match="no kernel 'conv3d_forward'"):
        _ = k.conv3d_forward
    with pytest.raises(AttributeError, match="no kernel 'conv3d' to replace"):
        k.replace(conv3d=None)


def test_segments_are_summed_and_zeros_are_zero():
    k, a = kernels.reference(), np.arange(12.0).reshape(2, 6)
    assert k.sum_segments(a, [0, 1, 4]).tolist() == [[0, 6, 9], [6, 24, 21]]
    zeros = kernels.cpu().zeros((2, 3, 4, 5, 6), np.float32)
    assert zeros.dtype == np.float32 and zeros.shape == (2, 3, 4, 5, 6) and not zeros.any()


def test_the_reference_set_loads_neither_numba_nor_the_implementations_it_does_not_need():
    code = (
        "import sys, refmaml.kernels as k; k.reference(); "
        "print([m for m in sys.modules if m.split('.')[0] in ('numba', 'scipy', 'cupy') "
        "or m.startswith('refmaml.kernels') and m.endswith(('.cpu', '.cuda', '.numba_cuda'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.stdout.strip() == "[]", out.stdout + out.stderr
