"""TorchOpt: differentiable optimizers, and implicit differentiation of a solution."""

from contextlib import contextmanager
from dataclasses import replace

import torch
import torchopt

import refmaml as rm
from adapters.library import Library
from adapters.torch_common import Probe, by_task, gradient


def torchopt_optimizer(rule, lr, **options):
    """TorchOpt's functional optimizer with the fields of an update rule."""
    if rule.plain:
        return torchopt.sgd(lr)
    given = {"weight_decay": rule.weight_decay}
    if isinstance(rule, rm.Adam):
        name = "adamw" if rule.decoupled else "adam"
        given |= {"betas": rule.betas, "eps": rule.eps, "eps_root": rule.eps_root}
        return getattr(torchopt, name)(lr, **given, **options)
    if isinstance(rule, rm.SGD):
        given |= {"momentum": rule.momentum, "nesterov": rule.nesterov}
        return torchopt.sgd(lr, dampening=rule.dampening, **given)
    given |= {"alpha": rule.alpha, "eps": rule.eps, "momentum": rule.momentum}
    return torchopt.rmsprop(lr, centered=rule.centered, **given)


def lacks(rule):
    """Why TorchOpt has no such rule, or ""."""
    if isinstance(rule, rm.RMSprop) and rule.eps_root:
        return "no eps_root in RMSprop"
    known = isinstance(rule, rm.SGD | rm.Adam | rm.RMSprop) or rule.plain
    return "" if known else f"no {type(rule).__name__} in this adapter"


def lacks_fused(rule):
    """Why there is no fused operator for a rule, or ""."""
    return "" if type(rule) is rm.Adam else "the fused operator is Adam's alone"


@contextmanager
def default_dtype(name):
    """A context in which new tensors of PyTorch have that dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, name))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def unrolled(default="float32", **options):
    """MAML with the method's rule inside.

    default  PyTorch's default dtype during the call; TorchOpt computes 1 - beta^t in it
    options  of TorchOpt's optimizer, beside the rule's fields
    """

    @by_task
    def maml(problem, params, x, y, x_query, y_query):
        module, method = Probe(problem, params), problem.method
        start, rule = module.start, torchopt_optimizer(method.rule, method.inner_lr, **options)
        optimizer = torchopt.MetaOptimizer(module, rule)
        with default_dtype(default):
            for _ in range(method.inner_steps):
                optimizer.step(module(x, y))
            return gradient(module(x_query, y_query), start)

    return maml


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
    {"MAML": unrolled(), "ANIL": unrolled(), "iMAML": imaml},
    {
        "first-order MAML": "its differentiable optimisers have no such switch",
        "Meta-SGD": "one learning rate for all parameters",
        "Reptile": "no method of its own",
    },
    lacks,
)
# The columns of the table of update rules.
FLOAT64 = replace(LIBRARY, methods={"MAML": unrolled("float64")})
FLOAT32 = replace(LIBRARY, name="TorchOpt, default dtype float32")
FUSED = replace(
    LIBRARY,
    name="TorchOpt, use_accelerated_op",
    methods={"MAML": unrolled("float64", use_accelerated_op=True)},
    lacks=lacks_fused,
)
