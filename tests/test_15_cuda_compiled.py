"""The CUDA files compiled for real GPUs by NVRTC, which needs no GPU.

Each kernel has a budget of registers and may use neither spills nor a stack.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from cuda_shim import machine_code, nvrtc
from cuda_shim.build import kernel_names
from cuda_shim.kernels import texts

from refmaml.kernels.cuda_runtime.launcher import THREADS
from refmaml.kernels.cuda_runtime.source import PRECISIONS, source
from refmaml.kernels.discovery import folders
from refmaml.kernels.norm_act_pool.cuda import MAX_THREADS

# {kernel: [registers of a float32 thread, of a float64 thread]}, on any architecture.
BUDGET = json.loads((Path(__file__).parent / "cuda_shim" / "budget.json").read_text())
# float64 on one architecture only: each takes several seconds.
EVERYWHERE = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
COMBINATIONS = [*((arch, "float32") for arch in EVERYWHERE), ("sm_90", "float64")]


@pytest.fixture(scope="module")
def compiler():
    path = nvrtc.library()
    if path is None:
        pytest.skip(nvrtc.REASON)
    return nvrtc.Compiler(path)


def over_budget(found, dtype, budget=BUDGET):
    """Of {kernel: Resources}, those over their budget, or with a stack or spills."""
    return {
        kernel: r
        for kernel, r in found.items()
        if r.registers > budget[kernel][dtype == "float64"] or r.stack or r.spilled
    }


@pytest.mark.slow
@pytest.mark.parametrize("arch,dtype", COMBINATIONS)
def test_every_file_compiles_within_its_budget(compiler, arch, dtype):
    over = {}
    for operation in folders():
        found = compiler.compile(source(operation), arch, PRECISIONS[dtype])
        assert set(found) == set(kernel_names(source(operation)))
        over |= over_budget(found, dtype)
    assert not over, over


@pytest.mark.slow
def test_a_kernel_beyond_its_budget_is_named(compiler):
    """One kernel is compiled with too few registers; another gets a smaller budget."""
    name = "norm_act_pool_r_backward"
    hurried = source("norm_act_pool").replace(
        f"__global__ void {name}(", f"__global__ void __maxnreg__(24) {name}("
    )
    found = compiler.compile(hurried, "sm_90", "float")
    assert found[name].spilled and set(over_budget(found, "float32")) == {name}
    tight = {**BUDGET, "norm_act_pool_forward": [found["norm_act_pool_forward"].registers - 1, 0]}
    assert set(over_budget(found, "float32", tight)) == {name, "norm_act_pool_forward"}


def test_the_compiler_names_the_file_and_the_line_of_an_error(compiler):
    planted, text = (
        "struct ForwardPlan : NoSuchPlan {",
        (folders()["conv2d"] / "conv2d_v3.cu").read_text(),
    )
    line = text[: text.index("struct ForwardPlan")].count("\n") + 1
    with pytest.raises(RuntimeError, match=rf"conv2d_v3\.cu\({line}\): error"):
        compiler.compile(
            source("conv2d").replace("struct ForwardPlan : Plan {", planted), "sm_90", "float"
        )


def test_the_budget_has_every_kernel_and_lets_its_largest_block_run_everywhere():
    """Blocks of 256 threads, or MAX_THREADS if fused; an SM has 65536 registers."""
    assert set(BUDGET) == {name for text in texts().values() for name in kernel_names(text)}
    assert np.max(list(BUDGET.values())) * THREADS <= 65536
    assert (
        np.max(
            [registers for name, registers in BUDGET.items() if name.startswith("norm_act_pool")]
        )
        * MAX_THREADS
        <= 65536
    )


# ---- the main loops of v3: each kernel has one for one product and one for two -------

PER_SLICE = 512  # products of a thread: 8 x 8 for each of 8 k's
MIN_SHARE = 0.7  # of products among the instructions: gemm_v3.cu has 512 of some 710


@pytest.fixture(scope="module")
def main_loops(compiler, tmp_path_factory):
    """(text, architecture) -> {kernel: its main loops} of conv2d_*_v3 in float32."""
    tool = machine_code.disassembler()
    if tool is None:
        pytest.skip(machine_code.REASON)

    def found(text, arch):
        code = machine_code.machine_code(
            tool, compiler.cubin(text, arch, "float"), tmp_path_factory.mktemp(arch)
        )
        return {
            kernel: machine_code.main_loops(lines, PER_SLICE)
            for kernel, lines in code.items()
            if kernel.endswith("v3")
        }

    return found


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_120"])
def test_most_instructions_of_the_main_loops_are_products(main_loops, arch):
    loops = main_loops(source("conv2d"), arch)
    assert sorted(loops) == ["conv2d_backward_w_v3", "conv2d_backward_x_v3", "conv2d_forward_v3"]
    for kernel, ways in loops.items():
        assert len(ways) == 2 and all(machine_code.share(way) >= MIN_SHARE for way in ways), (
            kernel,
            list(map(machine_code.share, ways)),
        )


@pytest.mark.slow
def test_the_next_slice_is_loaded_among_the_products(main_loops):
    """Planted: behind a branch all loads come first."""

    def spread(text):
        return [
            machine_code.among(way, "LDG")
            for ways in main_loops(text, "sm_90").values()
            for way in ways
        ]

    behind = source("conv2d").replace(
        "        loader.load(buffer ^ 1);", "        if (more) loader.load(buffer ^ 1);"
    )
    assert (
        behind != source("conv2d")
        and min(spread(source("conv2d"))) > 0.05
        and max(spread(behind)) == 0
    )


@pytest.mark.slow
def test_a_loop_with_a_smaller_share_of_products_is_noticed(main_loops):
    """Planted: the loop over the k's of a slice is not unrolled."""
    rolled = source("conv2d").replace("#pragma unroll UNROLLED", "#pragma unroll 1")
    assert rolled != source("conv2d") and not any(main_loops(rolled, "sm_90").values())


def test_a_kernel_that_spills_and_one_that_does_not_compile_are_noticed(compiler):
    wasteful = """extern "C" __global__ void wasteful(REAL *y, const int *at)
    {
        REAL all[4096];
        for (int i = 0; i < 4096; i++) all[i] = y[i];
        y[0] = all[at[0]] + all[at[1]];
    }"""
    assert compiler.compile(wasteful, "sm_75", "float")["wasteful"].stack > 0
    with pytest.raises(RuntimeError, match="NVRTC_ERROR_COMPILATION.*undefined_function"):
        compiler.compile(wasteful.replace("at[0]", "undefined_function()"), "sm_75", "float")


def test_the_log_of_nvrtc_is_parsed():
    log = """ptxas info    : Compiling entry function 'a' for 'sm_90'
ptxas info    : Function properties for a
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 8 bytes cumulative stack size, 4352 bytes smem
ptxas info    : Compiling entry function 'b' for 'sm_90'
ptxas info    : Used 10 registers, used 0 barriers"""
    assert nvrtc.resources(log) == {
        "a": nvrtc.Resources(64, 8, 16, 4352),
        "b": nvrtc.Resources(10, 0, 0, 0),
    }
