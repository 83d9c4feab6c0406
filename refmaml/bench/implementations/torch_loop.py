"""PyTorch as most MAML code uses it: a Python loop over tasks.

The inner gradients are by torch.autograd.grad with create_graph=True.
"""

from refmaml.autodiff.torch_formulas import make_loss
from refmaml.bench.implementations import torch_common
from refmaml.bench.implementations.implementation import OPENMP, Implementation
from refmaml.bench.implementations.inner_steps import first_state, inner_step


def prepare(workload, dtype, batch_norm, threads):
    """On the CPU, with that many threads."""
    torch_common.use_threads(threads)
    run = mean_gradient(workload, dtype, batch_norm, "cpu")
    return lambda: torch_common.flat(run())


def mean_gradient(workload, dtype, batch_norm, device):
    """() -> the mean meta-gradient, a tensor for each parameter.

    Tasks run one after the other; the gradient of each is added to the sum at once.
    """
    import torch

    loss, method = make_loss(workload.net(), batch_norm), workload.method
    named, tasks = torch_common.tensors(workload, dtype, device)
    rule = method.rule

    def task_gradient(x_support, y_support, x_query, y_query):
        start = {name: a.detach().requires_grad_() for name, a in named.items()}
        phi, state = start, first_state(rule, start)
        for t in range(1, method.inner_steps + 1):
            gradients = torch.autograd.grad(
                loss(phi, x_support, y_support), list(phi.values()), create_graph=True
            )
            g = dict(zip(phi, gradients, strict=True))
            phi, state = inner_step(rule, method.inner_lr, phi, g, state, t, torch.sqrt)
        return torch.autograd.grad(loss(phi, x_query, y_query), list(start.values()))

    def run():
        total = [torch.zeros_like(a) for a in named.values()]
        for task in zip(*tasks, strict=True):
            total = [a.add_(g) for a, g in zip(total, task_gradient(*task), strict=True)]
        return [a.div_(workload.tasks) for a in total]

    return run


IMPLEMENTATION = Implementation(
    "torch-loop",
    "PyTorch, loop over tasks",
    ("torch",),
    torch_common.choices,
    prepare,
    OPENMP,
    torch_common.first_use,
)
