"""PyTorch and JAX on a GPU: the same formulas as on the processor, all tasks at once, batch-norm in primitives.

"-tf32" behind a name rounds the factors of every float32 product to TF32; without it every product is one of float32 numbers, for all
alike: PyTorch's flags are off, JAX's precision is "highest". What a call returned stays on the GPU; who times it waits for it.
"""

from functools import partial

from refmaml.autodiff import jax_formulas, torch_formulas
from refmaml.bench.contestants import torch_loop, torch_vmap
from refmaml.bench.contestants.contestant import Contestant

TF32 = "-tf32"


# ---- PyTorch -----------------------------------------------------------------------------------------------------


def use_products(reduced):
    """Whether PyTorch may use TF32; cuDNN tries its algorithms out and keeps the fastest."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = reduced
    torch.backends.cudnn.benchmark = True


def loop(reduced, workload, dtype):
    """A Python loop over tasks."""
    use_products(reduced)
    return torch_loop.mean_gradient(workload, dtype, "primitive", "cuda")


def vmap(reduced, workload, dtype):
    """torch.func.vmap over all tasks."""
    use_products(reduced)
    return torch_vmap.mean_gradient(workload, dtype, "primitive", workload.tasks, "cuda")


def compiled(reduced, workload, dtype):
    """The same through torch.compile, in the mode that replays what it compiled as CUDA graphs; for these shapes alone, as after other
    ones it would compile for any."""
    import torch

    use_products(reduced)
    return torch_vmap.mean_gradient(
        workload,
        dtype,
        "primitive",
        workload.tasks,
        "cuda",
        partial(torch.compile, mode="reduce-overhead", dynamic=False),
    )


def graph(reduced, workload, dtype):
    """The launches of the vmap captured as a CUDA graph and replayed, after three runs beside the capture that try algorithms out."""
    import torch

    run, beside = vmap(reduced, workload, dtype), torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(beside)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        gradients = run()

    def replay():
        captured.replay()
        return gradients

    return replay


def torch_done(gradients):
    import torch

    torch.cuda.synchronize()


def torch_peak(run):
    """Bytes PyTorch's allocator held at most."""
    import torch

    return torch.cuda.max_memory_reserved()


def torch_first_use():
    """A square on the GPU."""
    import torch

    torch.ones(1, device="cuda", requires_grad=True).square().backward()


# ---- JAX ---------------------------------------------------------------------------------------------------------


def jax_vmap(reduced, workload, dtype, unroll, convolution):
    """jit of vmap over all tasks; convolutions as matrices of patches, or XLA's own."""
    import jax

    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if reduced else "highest")
    formula = {"patches": jax_formulas.conv2d, "library": jax_formulas.library_conv2d}[convolution]
    return jax_formulas.meta_gradient(workload, dtype, unroll, jax_formulas.vmapped, formula)


def jax_choices(workload):
    images = len(workload.net().input_shape) == 3
    return {
        "convolution": ("patches", "library") if images else ("patches",),
        "unroll": jax_formulas.unrolls(workload),
    }


def jax_done(gradient):
    gradient.block_until_ready()


def jax_peak(run):
    """Bytes JAX's allocator had given away at most, or None where it does not say."""
    import jax

    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def nothing_to_choose(workload):
    return {}


TORCH = {
    "torch-loop-cuda": ("PyTorch, loop over tasks", nothing_to_choose, loop),
    "torch-vmap-cuda": ("PyTorch, torch.func vmap", nothing_to_choose, vmap),
    "torch-compile-cuda": ("PyTorch, vmap + torch.compile", nothing_to_choose, compiled),
    "torch-graph-cuda": ("PyTorch, vmap + CUDA graph", nothing_to_choose, graph),
}
JAX = {"jax-vmap-cuda": ("JAX, jit + vmap", jax_choices, jax_vmap)}
NAMES = (
    *TORCH,
    *JAX,
    *(f"{name}{TF32}" for name in ("torch-compile-cuda", "torch-graph-cuda", "jax-vmap-cuda")),
)


def find(name):
    """The contestant of a name in NAMES."""
    plain, reduced = name.removesuffix(TF32), name.endswith(TF32)
    title, choices, prepare = (TORCH | JAX)[plain]
    common = {
        "title": f"{title}, TF32" if reduced else title,
        "choices": choices,
        "prepare": partial(prepare, reduced),
        "reduced": reduced,
    }
    if plain in JAX:
        return Contestant(
            name,
            modules=("jax",),
            first_use=jax_formulas.first_use,
            finish=jax_done,
            peak=jax_peak,
            **common,
        )
    return Contestant(
        name,
        modules=("torch",),
        first_use=torch_first_use,
        fetch=torch_formulas.flat,
        finish=torch_done,
        peak=torch_peak,
        **common,
    )
