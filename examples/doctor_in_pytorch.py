"""The doctor on two meta-gradients in PyTorch: one is right, one lacks the Hessian.

python examples/doctor_in_pytorch.py
"""

import torch

import refmaml as rm


def maml(create_graph):
    """MAML in PyTorch, as a function that the doctor can call."""

    def gradient(problem, params, batch):
        theta = {name: p.clone().requires_grad_() for name, p in params.items()}
        losses = []
        for x_support, y_support, x_query, y_query in zip(*batch, strict=True):
            phi = theta
            for _ in range(problem.method.inner_steps):
                loss = problem.loss(phi, x_support, y_support)
                grads = torch.autograd.grad(loss, list(phi.values()), create_graph=create_graph)
                pairs = zip(phi.items(), grads, strict=True)
                phi = {name: p - problem.method.inner_lr * g for (name, p), g in pairs}
            losses.append(problem.loss(phi, x_query, y_query))
        mean = torch.stack(losses).mean()
        return dict(zip(theta, torch.autograd.grad(mean, list(theta.values())), strict=True))

    return gradient


for create_graph in (True, False):
    method = rm.MAML(inner_lr=0.1, inner_steps=5)
    report = rm.check_meta_gradient(maml(create_graph), method, framework="torch")
    print(f"create_graph={create_graph}: {str(report).splitlines()[0]}")
