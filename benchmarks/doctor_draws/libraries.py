"""One interface to gradients in NumPy, PyTorch and JAX, for the drawn functions.

    gradient(loss, params)    {name: array}, differentiable in PyTorch and JAX
    product(params, x, y, v)  H v of one task's loss, by name
    stopped(a)                a without its derivatives

Gradients are those of the framework. NumPy has none: there they are
problem.gradient and problem.hvp.
"""

import importlib

import numpy as np


class Torch:
    """PyTorch: torch.autograd.grad."""

    name = "torch"

    def __init__(self, problem):
        self.torch, self.problem = importlib.import_module("torch"), problem
        self.exp, self.sqrt, self.tanh = self.torch.exp, self.torch.sqrt, self.torch.tanh
        self.sign, self.cat = self.torch.sign, self.torch.cat

    def clip(self, a, limit):
        return self.torch.clamp(a, -limit, limit)

    def stopped(self, a):
        return a.detach()

    def loss(self, params, x, y):
        return self.problem.loss(params, x, y)

    def gradient(self, params, x, y):
        """That of the task's loss, differentiable."""
        if not all(p.requires_grad for p in params.values()):
            params = {n: p if p.requires_grad else p.requires_grad_() for n, p in params.items()}
        value = self.problem.loss(params, x, y)
        found = self.torch.autograd.grad(value, list(params.values()), create_graph=True)
        return dict(zip(params, found, strict=True))

    def outer_gradient(self, objective, theta):
        leaves = {n: p.detach().clone().requires_grad_() for n, p in theta.items()}
        value = objective(leaves)
        found = self.torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        return {
            n: self.torch.zeros_like(leaves[n]) if g is None else g
            for n, g in zip(leaves, found, strict=True)
        }

    def product(self, params, x, y, v):
        leaves = {n: p.detach().clone().requires_grad_() for n, p in params.items()}
        g = self.gradient(leaves, x, y)
        along = sum((g[n] * v[n].detach()).sum() for n in g)
        return dict(zip(g, self.torch.autograd.grad(along, list(leaves.values())), strict=True))


class Jax:
    """JAX: jax.grad, and a Jacobian-vector product of it."""

    name = "jax"

    def __init__(self, problem):
        self.jax, self.problem = importlib.import_module("jax"), problem
        jnp = self.jax.numpy
        self.exp, self.sqrt, self.tanh = jnp.exp, jnp.sqrt, jnp.tanh
        self.sign, self.cat = jnp.sign, jnp.concatenate

    def clip(self, a, limit):
        return self.jax.numpy.clip(a, -limit, limit)

    def stopped(self, a):
        return self.jax.lax.stop_gradient(a)

    def loss(self, params, x, y):
        return self.problem.loss(params, x, y)

    def gradient(self, params, x, y):
        """That of the task's loss, differentiable."""
        return self.jax.grad(lambda p: self.problem.loss(p, x, y))(params)

    def outer_gradient(self, objective, theta):
        return self.jax.grad(objective)(theta)

    def product(self, params, x, y, v):
        def gradient(p):
            return self.gradient(p, x, y)

        return self.jax.jvp(gradient, (params,), (v,))[1]


class Numpy:
    """NumPy: the problem's own gradient and product."""

    name = "numpy"
    exp, sqrt, tanh, sign, cat = np.exp, np.sqrt, np.tanh, np.sign, np.concatenate

    def __init__(self, problem):
        self.problem = problem

    def clip(self, a, limit):
        return np.clip(a, -limit, limit)

    def stopped(self, a):
        return a

    def loss(self, params, x, y):
        return self.problem.loss(params, x, y)

    def gradient(self, params, x, y):
        return self.problem.gradient(params, x, y)

    def product(self, params, x, y, v):
        return self.problem.hvp(params, x, y, v)


LIBRARIES = {"torch": Torch, "jax": Jax, "numpy": Numpy}
