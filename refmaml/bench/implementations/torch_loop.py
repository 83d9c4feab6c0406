"""PyTorch as most MAML code uses it: a Python loop over tasks.

The inner gradients are by torch.autograd.grad with create_graph=True.
"""

from refmaml.autodiff.torch_formulas import make_loss
from refmaml.bench.implementations import torch_common
from refmaml.bench.implementations.implementation import EVERY_METHOD, OPENMP, Implementation
from refmaml.bench.implementations.implicit import conjugate_gradients, proximal_step
from refmaml.bench.implementations.inner_steps import first_state, inner_step
from refmaml.methods import IMAML, MAML, Reptile


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

    loss = make_loss(workload.net(), batch_norm)
    named, tasks = torch_common.tensors(workload, dtype, device)
    task_gradient = TASK_GRADIENTS[type(workload.method)](loss, workload.method, named)

    def run():
        total = [torch.zeros_like(a) for a in named.values()]
        for task in zip(*tasks, strict=True):
            total = [a.add_(g) for a, g in zip(total, task_gradient(*task), strict=True)]
        return [a.div_(workload.tasks) for a in total]

    return run


def of_maml(loss, method, named):
    """Through the inner loop, by create_graph=True."""
    import torch

    def task_gradient(x_support, y_support, x_query, y_query):
        start = {name: a.detach().requires_grad_() for name, a in named.items()}
        phi, state = start, first_state(method.rule, start)
        for t in range(1, method.inner_steps + 1):
            gradients = torch.autograd.grad(
                loss(phi, x_support, y_support), list(phi.values()), create_graph=True
            )
            g = dict(zip(phi, gradients, strict=True))
            phi, state = inner_step(method.rule, method.inner_lr, phi, g, state, t, torch.sqrt)
        return torch.autograd.grad(loss(phi, x_query, y_query), list(start.values()))

    return task_gradient


def descend(loss, method, named, x, y):
    """phi after the inner loop, by name, ready for derivatives."""
    import torch

    phi = named
    for _ in range(method.inner_steps):
        phi = {name: a.detach().requires_grad_() for name, a in phi.items()}
        gradients = torch.autograd.grad(loss(phi, x, y), list(phi.values()))
        with torch.no_grad():
            phi = proximal_step(method, phi, dict(zip(phi, gradients, strict=True)), named)
    return {name: a.detach().requires_grad_() for name, a in phi.items()}


def of_imaml(loss, method, named):
    """CG; a product is the derivative of <grad f(phi*), v>, whose graph is kept."""
    import torch

    sizes = [a.numel() for a in named.values()]

    def flat(tensors):
        return torch.cat([a.reshape(-1) for a in tensors])

    def unflattened(v):
        parts = zip(v.split(sizes), named.values(), strict=True)
        return [part.view_as(a) for part, a in parts]

    def task_gradient(x_support, y_support, x_query, y_query):
        phi = descend(loss, method, named, x_support, y_support)
        leaves = list(phi.values())
        g = torch.autograd.grad(loss(phi, x_support, y_support), leaves, create_graph=True)
        b = flat(torch.autograd.grad(loss(phi, x_query, y_query), leaves))

        def product(v):
            Hv = torch.autograd.grad(g, leaves, unflattened(v), retain_graph=True)
            return v + flat(Hv) / method.regularization

        return unflattened(conjugate_gradients(product, b, method.cg_steps))

    return task_gradient


def of_reptile(loss, method, named):
    """theta - phi_K."""

    def task_gradient(x_support, y_support, x_query, y_query):
        phi = descend(loss, method, named, x_support, y_support)
        return [a - phi[name].detach() for name, a in named.items()]

    return task_gradient


TASK_GRADIENTS = {MAML: of_maml, IMAML: of_imaml, Reptile: of_reptile}
IMPLEMENTATION = Implementation(
    "torch-loop",
    "PyTorch, loop over tasks",
    ("torch",),
    torch_common.choices,
    prepare,
    OPENMP,
    torch_common.first_use,
    methods=EVERY_METHOD,
)
