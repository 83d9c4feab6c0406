"""PyTorch's function transforms: torch.func.vmap of nested torch.func.grad."""

from refmaml.autodiff.torch_formulas import make_loss
from refmaml.bench.implementations import torch_common
from refmaml.bench.implementations.implementation import OPENMP, Implementation, chunks
from refmaml.bench.implementations.inner_steps import first_state, inner_step


def choices(workload):
    return {"chunk": chunks(workload), **torch_common.choices(workload)}


def prepare(workload, dtype, batch_norm, chunk, threads):
    """On the CPU, with that many threads."""
    torch_common.use_threads(threads)
    run = mean_gradient(workload, dtype, batch_norm, chunk, "cpu")
    return lambda: torch_common.flat(run())


def mean_gradient(workload, dtype, batch_norm, chunk, device, compiled=lambda function: function):
    """() -> the mean meta-gradient, a tensor for each parameter.

    chunk     tasks at once: torch.func.vmap runs over chunks of this size
    compiled  (function) -> function, as torch.compile
    """
    from torch import sqrt
    from torch.func import grad, vmap

    loss, method = make_loss(workload.net(), batch_norm), workload.method
    named, tasks = torch_common.tensors(workload, dtype, device)
    rule = method.rule

    def meta_loss(phi, x_support, y_support, x_query, y_query):
        state = first_state(rule, phi)
        for t in range(1, method.inner_steps + 1):
            g = grad(loss)(phi, x_support, y_support)
            phi, state = inner_step(rule, method.inner_lr, phi, g, state, t, sqrt)
        return loss(phi, x_query, y_query)

    each = vmap(
        grad(meta_loss),
        in_dims=(None, 0, 0, 0, 0),
        chunk_size=chunk if chunk < workload.tasks else None,
    )

    @compiled
    def mean(named, *tasks):
        return [g.mean(dim=0) for g in each(named, *tasks).values()]

    return lambda: mean(named, *tasks)


IMPLEMENTATION = Implementation(
    "torch-vmap",
    "PyTorch, torch.func vmap",
    ("torch",),
    choices,
    prepare,
    OPENMP,
    torch_common.first_use,
)
