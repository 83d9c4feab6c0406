"""TorchOpt: a differentiable SGD, and implicit differentiation of a solution."""

import torch
import torchopt

from adapters.library import Library
from adapters.torch_common import Probe, by_task, gradient


@by_task
def maml(problem, params, x, y, x_query, y_query):
    module = Probe(problem, params)
    start, optimizer = module.start, torchopt.MetaSGD(module, lr=problem.method.inner_lr)
    for _ in range(problem.method.inner_steps):
        optimizer.step(module(x, y))
    return gradient(module(x_query, y_query), start)


class Proximal(
    torchopt.nn.ImplicitMetaGradientModule,
    linear_solve=torchopt.linear_solve.solve_normal_cg(maxiter=200, atol=0.0, rtol=1e-15),
):
    """phi* = argmin f(phi) + lambda/2 |phi - theta|^2.

    The arguments of its constructor are the meta-parameters.
    """

    def __init__(self, meta, problem, params):
        super().__init__()
        self.meta = meta
        self.net = Probe(problem, params)
        self.method = problem.method

    def objective(self, x, y):
        distance = sum(
            ((a - b) ** 2).sum()
            for a, b in zip(self.parameters(), self.meta_parameters(), strict=True)
        )
        return self.net(x, y) + self.method.regularization / 2 * distance

    def solve(self, x, y):
        parameters = tuple(self.parameters())
        optimizer = torch.optim.SGD(parameters, lr=self.method.inner_lr)
        with torch.enable_grad():
            for _ in range(150):
                optimizer.zero_grad()
                self.objective(x, y).backward(inputs=parameters)
                optimizer.step()
        return self


@by_task
def imaml(problem, params, x, y, x_query, y_query):
    meta = Probe(problem, params)
    inner = Proximal(meta, problem, params)
    inner.solve(x, y)
    return gradient(inner.net(x_query, y_query), meta.start)


LIBRARY = Library(
    "TorchOpt",
    "torchopt",
    ("torchopt", "torch"),
    "torch",
    {"MAML": maml, "ANIL": maml, "iMAML": imaml},
    {
        "first-order MAML": "its differentiable optimisers have no such switch",
        "Meta-SGD": "one learning rate for all parameters",
        "Reptile": "no method of its own",
    },
)
