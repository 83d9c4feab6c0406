"""PyTorch as most MAML code uses it: torch.autograd.grad with create_graph."""

import torch

from adapters.library import Library, adapted, rates, weights
from adapters.torch_common import by_task, gradient, leaves


def descend(problem, params, start, x, y, create_graph):
    """phi_K from `start`."""
    phi, alpha = weights(problem, start), rates(problem, params)
    for _ in range(problem.method.inner_steps):
        found = torch.autograd.grad(
            problem.loss(phi, x, y), [phi[name] for name in alpha], create_graph=create_graph
        )
        phi = phi | {
            name: phi[name] - alpha[name] * g for name, g in zip(alpha, found, strict=True)
        }
    return phi


def unrolled(create_graph):
    def one_task(problem, params, x, y, x_query, y_query):
        start = leaves(params)
        return gradient(
            problem.loss(descend(problem, start, start, x, y, create_graph), x_query, y_query),
            start,
        )

    return by_task(one_task)


@by_task
def reptile(problem, params, x, y, x_query, y_query):
    phi = descend(problem, params, leaves(params), x, y, create_graph=False)
    return {name: (params[name] - phi[name]).detach() for name in params}


@by_task
def imaml(problem, params, x, y, x_query, y_query):
    """Gradient descent on the proximal problem, then conjugate gradients.

    They solve (I + H / lambda) u = grad g with Hessian-vector products by autograd.
    """
    strength, names = problem.method.regularization, adapted(problem)
    phi = proximal_solution(problem, params, x, y)
    q = flat(gradient(problem.loss(phi, x_query, y_query), phi).values())
    leaves_of_phi = list(phi.values())
    inner = flat(torch.autograd.grad(problem.loss(phi, x, y), leaves_of_phi, create_graph=True))

    def product(v):
        return v + flat(torch.autograd.grad(inner @ v, leaves_of_phi, retain_graph=True)) / strength

    u = conjugate_gradients(product, q)
    parts = torch.split(u, [params[name].numel() for name in names])
    return {name: part.reshape(params[name].shape) for name, part in zip(names, parts, strict=True)}


def proximal_solution(problem, params, x, y):
    """150 steps of gradient descent on f(phi) + lambda/2 |phi - theta|^2."""
    method, phi = problem.method, leaves(params)
    for _ in range(150):
        g = gradient(problem.loss(phi, x, y), phi)
        phi = leaves(
            {
                name: a - method.inner_lr * (g[name] + method.regularization * (a - params[name]))
                for name, a in phi.items()
            }
        )
    return phi


def flat(tensors):
    """All entries as one vector."""
    return torch.cat([a.ravel() for a in tensors])


def conjugate_gradients(product, b, iterations=60):
    """x with product(x) = b, to rounding."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    tiny = torch.finfo(b.dtype).eps * b.norm()
    for _ in range(iterations):
        if r.norm() <= tiny:
            break
        Ap = product(p)
        a = (r @ r) / (p @ Ap)
        x, new = x + a * p, r - a * Ap
        p, r = new + (new @ new) / (r @ r) * p, new
    return x


LIBRARY = Library(
    "PyTorch, loop",
    "torch",
    ("torch",),
    "torch",
    {
        "MAML": unrolled(True),
        "first-order MAML": unrolled(False),
        "ANIL": unrolled(True),
        "Meta-SGD": unrolled(True),
        "Reptile": reptile,
        "iMAML": imaml,
    },
)
