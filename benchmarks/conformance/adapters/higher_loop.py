"""higher: innerloop_ctx with its differentiable copies of torch.optim's optimizers."""

from dataclasses import fields

import higher
import torch

from adapters.library import Library, rate
from adapters.torch_common import Probe, by_task, gradient, leaves


def lacks(rule):
    """Why higher has no such rule, or ""."""
    if getattr(rule, "eps_root", 0):
        return "no eps_root"
    name = type(rule).__name__
    return "" if name in ("UpdateRule", "SGD", "Adam", "RMSprop") else f"no {name}"


def torch_optimizer(rule, groups, lr):
    """The optimizer of torch.optim with the fields of an update rule."""
    if rule.plain:
        return torch.optim.SGD(groups, lr=lr)
    given = {f.name: getattr(rule, f.name) for f in fields(rule) if f.name != "eps_root"}
    return getattr(torch.optim, type(rule).__name__)(groups, lr=lr, **given)


def inner(problem, module, x, y, **options):
    """(functional module, its optimiser's context), before the first of K steps."""
    groups = [{"params": [p]} for p in module.parameters()]
    method = problem.method
    optimizer = torch_optimizer(method.rule, groups, getattr(method, "inner_lr", 0.1))
    return higher.innerloop_ctx(module, optimizer, copy_initial_weights=False, **options)


@by_task
def maml(problem, params, x, y, x_query, y_query):
    module = Probe(problem, params)
    start = module.start
    with inner(problem, module, x, y) as (functional, optimizer):
        for _ in range(problem.method.inner_steps):
            optimizer.step(functional(x, y))
        return gradient(functional(x_query, y_query), start)


@by_task
def first_order(problem, params, x, y, x_query, y_query):
    """The gradient at the adapted parameters.

    track_higher_grads=False cuts the graph back to theta (its issue 129).
    """
    module = Probe(problem, params)
    with inner(problem, module, x, y, track_higher_grads=False) as (functional, optimizer):
        for _ in range(problem.method.inner_steps):
            optimizer.step(functional(x, y))
        return gradient(
            functional(x_query, y_query),
            dict(zip(module.own, functional.parameters(), strict=True)),
        )


@by_task
def meta_sgd(problem, params, x, y, x_query, y_query):
    """Step sizes by `override`: a tensor for each parameter group."""
    module = Probe(problem, params)
    alpha = leaves({rate(name): params[rate(name)] for name in module.own})
    start = {**module.start, **alpha}
    with inner(problem, module, x, y, override={"lr": list(alpha.values())}) as (
        functional,
        optimizer,
    ):
        for _ in range(problem.method.inner_steps):
            optimizer.step(functional(x, y))
        return gradient(functional(x_query, y_query), start)


@by_task
def reptile(problem, params, x, y, x_query, y_query):
    module = Probe(problem, params)
    with inner(problem, module, x, y, track_higher_grads=False) as (functional, optimizer):
        for _ in range(problem.method.inner_steps):
            optimizer.step(functional(x, y))
        return {
            name: (params[name] - p).detach()
            for name, p in zip(module.own, functional.parameters(), strict=True)
        }


LIBRARY = Library(
    "higher",
    "higher",
    ("higher", "torch"),
    "torch",
    {
        "MAML": maml,
        "first-order MAML": first_order,
        "ANIL": maml,
        "Meta-SGD": meta_sgd,
        "Reptile": reptile,
    },
    {"iMAML": "no implicit differentiation"},
    lacks,
)
