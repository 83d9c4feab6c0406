"""higher (facebookresearch/higher): a loop over tasks, its differentiable SGD on a functional copy of a module."""

from refmaml.autodiff import torch_formulas
from refmaml.bench.contestants.contestant import OPENMP, Contestant


def make_module(named, loss):
    """A module that holds the parameters, and whose call is the loss; a module's names may have no dot."""
    import torch

    class Loss(torch.nn.Module):
        def forward(self, x, y):
            return loss({name: getattr(self, name.replace(".", "_")) for name in named}, x, y)

    module = Loss()
    for name, a in named.items():
        module.register_parameter(name.replace(".", "_"), torch.nn.Parameter(a.clone()))
    return module


def prepare(workload, dtype, batch_norm, threads):
    """Tasks one after the other, each in an innerloop_ctx of its own."""
    import higher
    import torch

    torch_formulas.use_threads(threads)
    method = workload.method
    named, tasks = torch_formulas.tensors(workload, dtype, "cpu")
    module = make_module(named, torch_formulas.make_loss(workload.net(), batch_norm))
    optimizer = torch.optim.SGD(module.parameters(), lr=method.inner_lr)

    def task_gradient(x_support, y_support, x_query, y_query):
        with higher.innerloop_ctx(module, optimizer, copy_initial_weights=False) as (
            adapted,
            descent,
        ):
            for _ in range(method.inner_steps):
                descent.step(adapted(x_support, y_support))
            return torch.autograd.grad(adapted(x_query, y_query), list(module.parameters()))

    def run():
        total = [torch.zeros_like(a) for a in named.values()]
        for task in zip(*tasks, strict=True):
            total = [a.add_(g) for a, g in zip(total, task_gradient(*task), strict=True)]
        return torch_formulas.flat(total) / workload.tasks

    return run


CONTESTANT = Contestant(
    "higher",
    "higher, loop over tasks",
    ("torch", "higher"),
    torch_formulas.choices,
    prepare,
    OPENMP,
    torch_formulas.first_use,
)
