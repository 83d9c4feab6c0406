"""PyTorch's function transforms: torch.func.vmap of nested torch.func.grad."""

from refmaml.autodiff.torch_formulas import make_loss
from refmaml.bench.implementations import torch_common
from refmaml.bench.implementations.implementation import (
    EVERY_METHOD,
    OPENMP,
    Implementation,
    chunks,
)
from refmaml.bench.implementations.implicit import conjugate_gradients, proximal_step
from refmaml.bench.implementations.inner_steps import first_state, inner_step
from refmaml.methods import IMAML, MAML, Reptile


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
    from torch.func import vmap

    loss = make_loss(workload.net(), batch_norm)
    named, tasks = torch_common.tensors(workload, dtype, device)
    task_gradient = TASK_GRADIENTS[type(workload.method)](loss, workload.method)
    each = vmap(
        task_gradient,
        in_dims=(None, 0, 0, 0, 0),
        chunk_size=chunk if chunk < workload.tasks else None,
    )

    @compiled
    def mean(named, *tasks):
        return [g.mean(dim=0) for g in each(named, *tasks).values()]

    return lambda: mean(named, *tasks)


def of_maml(loss, method):
    """grad of a function that calls grad."""
    from torch import sqrt
    from torch.func import grad

    def meta_loss(phi, x_support, y_support, x_query, y_query):
        state = first_state(method.rule, phi)
        for t in range(1, method.inner_steps + 1):
            g = grad(loss)(phi, x_support, y_support)
            phi, state = inner_step(method.rule, method.inner_lr, phi, g, state, t, sqrt)
        return loss(phi, x_query, y_query)

    return grad(meta_loss)


def descend(loss, method, theta, x, y):
    """phi after the inner loop, by name."""
    from torch.func import grad

    phi = theta
    for _ in range(method.inner_steps):
        phi = proximal_step(method, phi, grad(loss)(phi, x, y), theta)
    return phi


def of_imaml(loss, method):
    """CG; products by vjp of the gradient, as H is symmetric.

    It runs reverse over reverse, where PyTorch's fused batch-norm is right.
    """
    import torch
    from torch.func import grad, vjp

    def task_gradient(theta, x_support, y_support, x_query, y_query):
        phi = descend(loss, method, theta, x_support, y_support)
        sizes = [a.numel() for a in theta.values()]

        def flat(named):
            return torch.cat([a.reshape(-1) for a in named.values()])

        def unflattened(v):
            parts = zip(theta.items(), v.split(sizes), strict=True)
            return {name: part.view(a.shape) for (name, a), part in parts}

        _, pull_back = vjp(lambda phi: grad(loss)(phi, x_support, y_support), phi)

        def product(v):
            return v + flat(pull_back(unflattened(v))[0]) / method.regularization

        b = flat(grad(loss)(phi, x_query, y_query))
        return unflattened(conjugate_gradients(product, b, method.cg_steps))

    return task_gradient


def of_reptile(loss, method):
    """theta - phi_K."""

    def task_gradient(theta, x_support, y_support, x_query, y_query):
        phi = descend(loss, method, theta, x_support, y_support)
        return {name: a - phi[name] for name, a in theta.items()}

    return task_gradient


TASK_GRADIENTS = {MAML: of_maml, IMAML: of_imaml, Reptile: of_reptile}
IMPLEMENTATION = Implementation(
    "torch-vmap",
    "PyTorch, torch.func vmap",
    ("torch",),
    choices,
    prepare,
    OPENMP,
    torch_common.first_use,
    methods=EVERY_METHOD,
)
