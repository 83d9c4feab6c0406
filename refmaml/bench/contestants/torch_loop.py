"""PyTorch as most MAML code uses it: a Python loop over tasks, torch.autograd.grad with create_graph."""

from refmaml.autodiff import torch_formulas
from refmaml.bench.contestants.contestant import OPENMP, Contestant


def prepare(workload, dtype, batch_norm, threads):
    """On the processor, with so many threads."""
    torch_formulas.use_threads(threads)
    run = mean_gradient(workload, dtype, batch_norm, "cpu")
    return lambda: torch_formulas.flat(run())


def mean_gradient(workload, dtype, batch_norm, device):
    """() -> the mean meta-gradient, a tensor for each parameter. Tasks one after the other; their gradients are added up as they come."""
    import torch

    loss, method = torch_formulas.make_loss(workload.net(), batch_norm), workload.method
    named, tasks = torch_formulas.tensors(workload, dtype, device)

    def task_gradient(x_support, y_support, x_query, y_query):
        start = {name: a.detach().requires_grad_() for name, a in named.items()}
        phi = start
        for _ in range(method.inner_steps):
            gradients = torch.autograd.grad(
                loss(phi, x_support, y_support), list(phi.values()), create_graph=True
            )
            phi = {
                name: a - method.inner_lr * g
                for (name, a), g in zip(phi.items(), gradients, strict=True)
            }
        return torch.autograd.grad(loss(phi, x_query, y_query), list(start.values()))

    def run():
        total = [torch.zeros_like(a) for a in named.values()]
        for task in zip(*tasks, strict=True):
            total = [a.add_(g) for a, g in zip(total, task_gradient(*task), strict=True)]
        return [a.div_(workload.tasks) for a in total]

    return run


CONTESTANT = Contestant(
    "torch-loop",
    "PyTorch, loop over tasks",
    ("torch",),
    torch_formulas.choices,
    prepare,
    OPENMP,
    torch_formulas.first_use,
)
