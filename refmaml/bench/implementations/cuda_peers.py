"""PyTorch and JAX on a GPU: the formulas of the CPU, batch-norm in primitives.

A name that ends in "-tf32" rounds the factors of every float32 product to TF32. Without
it every product is in float32: PyTorch's flags are off, JAX's precision is "highest".
A call returns at once and its result stays on the GPU; the timing synchronizes.
"""

from functools import partial

from refmaml.autodiff import jax_formulas
from refmaml.bench.implementations import jax_common, torch_common, torch_loop, torch_vmap
from refmaml.bench.implementations.implementation import Implementation, no_choices

TF32 = "-tf32"


# ---- PyTorch ----


def set_precision(reduced):
    """Allow TF32 or not. cuDNN tries its algorithms and keeps the fastest."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = reduced
    torch.backends.cudnn.benchmark = True


def loop(reduced, workload, dtype):
    """A Python loop over tasks."""
    set_precision(reduced)
    return torch_loop.mean_gradient(workload, dtype, "primitive", "cuda")


def vmap(reduced, workload, dtype):
    """torch.func.vmap over all tasks."""
    set_precision(reduced)
    return torch_vmap.mean_gradient(workload, dtype, "primitive", workload.tasks, "cuda")


def compiled(reduced, workload, dtype):
    """The vmap through torch.compile, in the mode that replays its code as CUDA graphs.

    dynamic=False: it compiles for these shapes alone. By default, after calls with
    other shapes, it would compile for any shape.
    """
    import torch

    set_precision(reduced)
    return torch_vmap.mean_gradient(
        workload,
        dtype,
        "primitive",
        workload.tasks,
        "cuda",
        partial(torch.compile, mode="reduce-overhead", dynamic=False),
    )


def graph(reduced, workload, dtype):
    """The launches of the vmap, captured as a CUDA graph and replayed.

    Three runs on a side stream, before the capture, let cuDNN choose its algorithms.
    """
    import torch

    run, side = vmap(reduced, workload, dtype), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        gradients = run()

    def replay():
        captured.replay()
        return gradients

    return replay


def torch_synchronize(gradients):
    import torch

    torch.cuda.synchronize()


def torch_peak(run):
    """The largest number of bytes that PyTorch's allocator has reserved."""
    import torch

    return torch.cuda.max_memory_reserved()


def torch_first_use():
    """A square on the GPU."""
    import torch

    torch.ones(1, device="cuda", requires_grad=True).square().backward()


# ---- JAX ----


def jax_vmap(reduced, workload, dtype, unroll, convolution):
    """jit of vmap over all tasks. convolution: "patches" or "library" (XLA's own)."""
    import jax

    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if reduced else "highest")
    formula = {"patches": jax_formulas.conv2d, "library": jax_formulas.library_conv2d}[convolution]
    return jax_common.meta_gradient(workload, dtype, unroll, jax_common.vmapped, formula)


def jax_choices(workload):
    images = len(workload.net().input_shape) == 3
    return {
        "convolution": ("patches", "library") if images else ("patches",),
        "unroll": jax_common.unrolls(workload),
    }


def jax_synchronize(gradient):
    gradient.block_until_ready()


def jax_peak(run):
    """The largest number of bytes in use in JAX's allocator; None if it is unknown."""
    import jax

    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


TORCH = {
    "torch-loop-cuda": ("PyTorch, loop over tasks", no_choices, loop),
    "torch-vmap-cuda": ("PyTorch, torch.func vmap", no_choices, vmap),
    "torch-compile-cuda": ("PyTorch, vmap + torch.compile", no_choices, compiled),
    "torch-graph-cuda": ("PyTorch, vmap + CUDA graph", no_choices, graph),
}
JAX = {"jax-vmap-cuda": ("JAX, jit + vmap", jax_choices, jax_vmap)}
NAMES = (
    *TORCH,
    *JAX,
    *(f"{name}{TF32}" for name in ("torch-compile-cuda", "torch-graph-cuda", "jax-vmap-cuda")),
)


def find(name):
    """The Implementation of a name in NAMES."""
    base, reduced = name.removesuffix(TF32), name.endswith(TF32)
    title, choices, prepare = (TORCH | JAX)[base]
    common = {
        "title": f"{title}, TF32" if reduced else title,
        "choices": choices,
        "prepare": partial(prepare, reduced),
        "reduced": reduced,
    }
    if base in JAX:
        return Implementation(
            name,
            modules=("jax",),
            first_use=jax_common.first_use,
            synchronize=jax_synchronize,
            peak_memory=jax_peak,
            **common,
        )
    return Implementation(
        name,
        modules=("torch",),
        first_use=torch_first_use,
        to_host=torch_common.flat,
        synchronize=torch_synchronize,
        peak_memory=torch_peak,
        **common,
    )
