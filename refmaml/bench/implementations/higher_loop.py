"""higher (facebookresearch/higher): a loop over tasks.

Its differentiable SGD works on a functional copy of a module.
"""

from refmaml.autodiff.torch_formulas import make_loss
from refmaml.bench.implementations import torch_common
from refmaml.bench.implementations.implementation import OPENMP, Implementation
from refmaml.update_rules import Adam


def make_module(named, loss):
    """A module that holds the parameters and whose call is the loss.

    A dot in a name becomes "_": parameters of a module have no dot in their names.
    """
    import torch

    class Loss(torch.nn.Module):
        def forward(self, x, y):
            return loss({name: getattr(self, name.replace(".", "_")) for name in named}, x, y)

    module = Loss()
    for name, a in named.items():
        module.register_parameter(name.replace(".", "_"), torch.nn.Parameter(a.clone()))
    return module


def make_optimizer(rule, parameters, lr):
    """torch.optim's optimiser of a rule, which higher makes differentiable."""
    import torch

    if isinstance(rule, Adam):
        return torch.optim.Adam(parameters, lr, rule.betas, rule.eps)
    return torch.optim.SGD(parameters, lr, momentum=getattr(rule, "momentum", 0))


def prepare(workload, dtype, batch_norm, threads):
    """Tasks one after the other, each in its own innerloop_ctx."""
    import higher
    import torch

    torch_common.use_threads(threads)
    method = workload.method
    named, tasks = torch_common.tensors(workload, dtype, "cpu")
    module = make_module(named, make_loss(workload.net(), batch_norm))
    optimizer = make_optimizer(method.rule, module.parameters(), method.inner_lr)

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
        return torch_common.flat(total) / workload.tasks

    return run


IMPLEMENTATION = Implementation(
    "higher",
    "higher, loop over tasks",
    ("torch", "higher"),
    torch_common.choices,
    prepare,
    OPENMP,
    torch_common.first_use,
)
