"""What adapters of PyTorch libraries share: leaves, and the loss as a module."""

import torch

from adapters.library import adapted, mean, tasks


def leaves(params):
    """Copies that require gradients."""
    return {name: a.detach().clone().requires_grad_() for name, a in params.items()}


def gradient(loss, start):
    """{name: d loss / d start[name]}; 0 where the loss does not depend on a tensor."""
    found = torch.autograd.grad(loss, list(start.values()), allow_unused=True)
    return {
        name: torch.zeros_like(a) if g is None else g
        for (name, a), g in zip(start.items(), found, strict=True)
    }


class Probe(torch.nn.Module):
    """The probe's loss of one task as a module: module(x, y).

    Its parameters are those that take inner steps; `fixed` holds the other ones.

    start  {name: leaf} of all of them: the variables of the meta-gradient
    """

    def __init__(self, problem, params):
        super().__init__()
        self.loss, self.own, self.fixed = problem.loss, adapted(problem), {}
        for name in problem.net.shapes:
            leaf = torch.nn.Parameter(params[name].detach().clone())
            if name in self.own:
                self.register_parameter(name.replace(".", "_"), leaf)
            else:
                self.fixed[name] = leaf

    @property
    def start(self):
        return {**dict(zip(self.own, self.parameters(), strict=True)), **self.fixed}

    def forward(self, x, y):
        return self.loss(
            {**{name: getattr(self, name.replace(".", "_")) for name in self.own}, **self.fixed},
            x,
            y,
        )


def by_task(function):
    """fn(problem, params, batch) from function(problem, params, *task) for one task."""
    return lambda problem, params, batch: mean(
        [function(problem, params, *task) for task in tasks(batch)]
    )
