"""The Numba CUDA kernels on Numba's simulator: every kernel against the reference.

The simulator runs in a process of its own, because its environment variable must be set
before Numba is imported. Arrays are tiny: each thread of the GPU is a thread of the
operating system.
"""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fused_layers import SMALL, unfused
from kernel_passes import draws, loss_passes, passes
from vector_passes import dots, vectors_passes

import refmaml as rm
from refmaml.kernels import discovery, factories
from refmaml.oracles import cases

pytestmark = pytest.mark.slow

pytest.importorskip("numba", reason="the numba_cuda kernels need numba, which is not installed")
HERE = Path(__file__).parent


def simulate(*arguments):
    """What `python cuda_simulator.py` prints, as JSON."""
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }
    result = subprocess.run(
        [sys.executable, str(HERE / "cuda_simulator.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


@pytest.mark.slow
def test_every_kernel_agrees_with_the_reference_on_the_simulator():
    found = simulate()
    assert not {
        what: fraction for what, fraction in found["fractions"].items() if not fraction <= 1
    }
    assert set(found["launched"]) == set(discovery.collect("reference", discovery.folders())[0])


def test_a_kernel_that_is_wrong_by_a_thousandth_is_caught_on_the_simulator():
    found = simulate("batch_norm_forward", "conv2d_r_backward_x", "norm_act_pool_r_backward")
    wrong = {what for what, fraction in found["fractions"].items() if not fraction <= 1}
    assert any("BatchNorm2d" in what for what in wrong) and any("Conv2d" in what for what in wrong)
    assert any("NormActPool" in what for what in wrong)
    assert any("far from 0" in what for what in wrong)


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu(monkeypatch):
    """Types are inferred and NVVM compiles each kernel to PTX; nothing is launched.

    The simulator runs Python without types, so it finds no error of this kind.
    """
    from numba import cuda, typeof
    from numba.cuda.cudadrv import nvvm

    if not nvvm.is_available():
        pytest.skip(
            "Numba finds no NVVM, a part of the CUDA toolkit: its kernels cannot be compiled here"
        )
    monkeypatch.setattr(
        "numba.cuda.dispatcher.get_current_device",
        lambda: SimpleNamespace(compute_capability=(9, 0)),
    )
    compiled = {}

    def compile_only(kernel, results, outputs, inputs, *numbers):
        types = tuple(typeof(np.ascontiguousarray(a)) for a in (*outputs, *inputs)) + tuple(
            typeof(n) for n in numbers
        )
        if (kernel, types) not in compiled:
            compiled[kernel, types], _ = cuda.compile_ptx(kernel.py_func, types, cc=(9, 0))
        for a in outputs:
            a[...] = 1

    for operation in discovery.folders():
        monkeypatch.setattr(
            import_module(f"refmaml.kernels.{operation}.numba_cuda"), "for_each", compile_only
        )
    run_every_kernel(
        rm.kernels.KernelSet("numba_cuda", discovery.collect("numba_cuda", discovery.folders())[0])
    )
    assert len(compiled) > 25 and all(".entry" in ptx for ptx in compiled.values())


def run_every_kernel(k):
    """Call each kernel of a set at least once, in float32."""
    for case in cases.LAYERS:
        passes(case, k, *draws(case, 1, False, np.float32))
    for case in SMALL[:1]:
        passes(case, k, *draws(unfused(case), 1, False, np.float32))
    for loss in cases.LOSSES[::3]:
        loss_passes(loss, k, np.float32)
    vectors_passes(k, np.float32, P=3)
    dots(k, np.float32, P=3)


def test_without_a_gpu_or_numba_the_error_is_one_line(monkeypatch):
    from numba import cuda

    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(
        RuntimeError,
        match="^the numba_cuda kernels: expected a GPU, got none; "
        "NUMBA_ENABLE_CUDASIM=1 .*simulator$",
    ):
        rm.kernels.numba_cuda()
    monkeypatch.setattr(factories, "importable", lambda module: False)
    with pytest.raises(ImportError, match="need numba"):
        rm.kernels.numba_cuda()
