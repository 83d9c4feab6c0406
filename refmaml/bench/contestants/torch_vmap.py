"""PyTorch's function transforms: vmap over chunks of tasks of the gradient of a function with a gradient inside."""

from refmaml.autodiff import torch_formulas
from refmaml.bench.contestants.contestant import OPENMP, Contestant, chunks


def choices(workload):
    return {"chunk": chunks(workload), **torch_formulas.choices(workload)}


def prepare(workload, dtype, batch_norm, chunk, threads):
    """On the processor, with so many threads."""
    torch_formulas.use_threads(threads)
    run = mean_gradient(workload, dtype, batch_norm, chunk, "cpu")
    return lambda: torch_formulas.flat(run())


def mean_gradient(workload, dtype, batch_norm, chunk, device, compiled=lambda function: function):
    """() -> the mean meta-gradient, a tensor for each parameter: all tasks by one call of torch.func.vmap, in chunks where there are fewer
    in one. compiled: function -> function."""
    from torch.func import grad, vmap

    loss, method = torch_formulas.make_loss(workload.net(), batch_norm), workload.method
    named, tasks = torch_formulas.tensors(workload, dtype, device)

    def meta_loss(phi, x_support, y_support, x_query, y_query):
        for _ in range(method.inner_steps):
            gradients = grad(loss)(phi, x_support, y_support)
            phi = {name: a - method.inner_lr * gradients[name] for name, a in phi.items()}
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


CONTESTANT = Contestant(
    "torch-vmap",
    "PyTorch, torch.func vmap",
    ("torch",),
    choices,
    prepare,
    OPENMP,
    torch_formulas.first_use,
)
