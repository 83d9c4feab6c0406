"""PyTorch's function transforms: vmap over chunks of tasks of the gradient of a function with a gradient inside."""
from refmaml.bench.contestants import torch_formulas
from refmaml.bench.contestants.contestant import OPENMP, Contestant, chunks


def choices(workload):
    return {"chunk": chunks(workload), **torch_formulas.choices(workload)}


def prepare(workload, dtype, batch_norm, chunk, threads):
    """All tasks by one call of torch.func.vmap with a chunk size."""
    from torch.func import grad, vmap
    torch_formulas.use_threads(threads)
    loss, method = torch_formulas.make_loss(workload.net(), batch_norm), workload.method
    named, tasks = torch_formulas.tensors(workload, dtype)

    def meta_loss(phi, x_support, y_support, x_query, y_query):
        for _ in range(method.inner_steps):
            gradients = grad(loss)(phi, x_support, y_support)
            phi = {name: a - method.inner_lr * gradients[name] for name, a in phi.items()}
        return loss(phi, x_query, y_query)
    gradients = vmap(grad(meta_loss), in_dims=(None, 0, 0, 0, 0), chunk_size=chunk)

    def run():
        each = gradients(named, *tasks)
        return torch_formulas.flat(each[name].mean(dim=0) for name in named)
    return run


CONTESTANT = Contestant("torch-vmap", "PyTorch, torch.func vmap", ("torch",), choices, prepare, OPENMP, torch_formulas.first_use)
