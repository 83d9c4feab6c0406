"""MAML in PyTorch on any loss, with the mistakes that occur in such code.

`variants(names)` has every function and a part of the name that the doctor gives it."""

import torch

LR, STEPS = 0.9, 3


def maml(loss, **changes):
    """fn(params, batch) -> gradient by name; `changes` are arguments of Variant."""
    return Variant(loss, **changes)


class Variant:
    """MAML, each keyword a place where code goes wrong."""

    def __init__(
        self, loss, lr=LR, steps=STEPS, create_graph=True, graph=lambda g: g, sets=lambda s: s,
        update=None, query_at=-1, losses=lambda v: torch.stack(v).mean(), at="previous",
        start="previous", factors=None, last_differentiated=None, accumulate=False,
        every_step=False, after=lambda named: named, outer_step=0.0,
    ):  # fmt: skip
        self.loss, self.lr, self.steps, self.create_graph = loss, lr, steps, create_graph
        self.graph, self.sets, self.update, self.query_at = graph, sets, update, query_at
        self.losses, self.at, self.start, self.factors = losses, at, start, factors or {}
        self.last_differentiated, self.accumulate = last_differentiated, accumulate
        self.every_step, self.after, self.outer_step = every_step, after, outer_step

    def __call__(self, params, batch):
        if self.outer_step:
            return self.sequential(params, batch)
        theta = {n: p.clone().requires_grad_() for n, p in params.items()}
        losses = [self.task_loss(theta, *self.sets(task)) for task in zip(*batch, strict=True)]
        return self.after(self.gradient(self.losses(losses), theta))

    def sequential(self, params, batch):
        """An outer step after every task."""
        total, start = 0, params
        for task in zip(*batch, strict=True):
            theta = {n: p.detach().clone().requires_grad_() for n, p in start.items()}
            found = self.gradient(self.task_loss(theta, *task), theta)
            total = found if total == 0 else {n: total[n] + g for n, g in found.items()}
            start = {n: p - self.outer_step * found[n] for n, p in start.items()}
        return {n: g / len(batch[0]) for n, g in total.items()}

    def gradient(self, value, theta):
        found = torch.autograd.grad(value, list(theta.values()), allow_unused=True)
        return {
            n: torch.zeros_like(p) if g is None else g
            for (n, p), g in zip(theta.items(), found, strict=True)
        }

    def task_loss(self, theta, xs, ys, xq, yq):
        phi, phis, state, extra = theta, [theta], {}, 0.0
        for k in range(self.steps):
            if self.last_differentiated and k == self.steps - self.last_differentiated:
                phi = {n: p.detach() + (theta[n] - theta[n].detach()) for n, p in phi.items()}
            point = theta if self.at == "start" else phi
            value = self.loss(point, xs, ys)
            extra = extra + value if self.accumulate else 0.0
            g = torch.autograd.grad(value, list(point.values()), create_graph=self.create_graph)
            g = dict(zip(point, map(self.graph, g), strict=True))
            d = self.update(point, g, state, k) if self.update else g
            base = theta if self.start == "start" else phi
            phi = {n: p - self.factors.get(n, 1.0) * self.lr * d[n] for n, p in base.items()}
            phis.append(phi)
        if self.every_step:
            return torch.stack([self.loss(phi, xq, yq) for phi in phis[1:]]).mean()
        outer = self.loss(phis[self.query_at], xq, yq)
        return outer + extra


# ---- updates -------------------------------------------------------------------------


def momentum(phi, g, state, k):
    for n in g:
        state[n] = 0.9 * state[n] + g[n] if n in state else g[n]
    return dict(state)


def adam(phi, g, state, k):
    out, t = {}, k + 1
    for n in g:
        m, v = state.get(n, (0.0, 0.0))
        m, v = 0.9 * m + 0.1 * g[n], 0.999 * v + 0.001 * g[n] ** 2
        state[n] = m, v
        out[n] = m / (1 - 0.9**t) / ((v / (1 - 0.999**t) + 1e-16).sqrt() + 1e-8)
    return out


def decay(phi, g, state, k):
    return {n: g[n] + 0.01 * phi[n] for n in g}


def clipped(detached, limit=0.2):
    def update(phi, g, state, k):
        norm = sum((a**2).sum() for a in g.values()).sqrt()
        factor = (limit / norm).clamp(max=1.0)
        factor = factor.detach() if detached else factor
        return {n: factor * a for n, a in g.items()}

    return update


def entries_clipped(phi, g, state, k):
    return {n: a.clamp(-0.1, 0.1) for n, a in g.items()}


# ---- the table -----------------------------------------------------------------------


def without_gradient(name):
    return lambda named: {n: torch.zeros_like(g) if n == name else g for n, g in named.items()}


def variants(names):
    """{what is wrong: (changes of Variant, a part of the doctor's name for it)}.

    names  of the net's parameters, the last two those of its head
    """
    weight, bias = names[-2], names[-1]
    biases = {n: 0.0 for n in names if n.rpartition(".")[2].startswith("bias")}
    double = {n: 2.0 for n in names if n == weight}
    return {
        "first-order": ({"create_graph": False}, "first-order"),
        "Hessian twice": ({"graph": lambda g: 2 * g - g.detach()}, "Hessian counts twice"),
        "Hessian half": ({"graph": lambda g: (g + g.detach()) / 2}, "Hessian counts half"),
        "Hessian's sign": ({"graph": lambda g: 2 * g.detach() - g}, "wrong sign"),
        "last step": ({"last_differentiated": 1}, "only the last 1 of the inner steps"),
        "last two steps": ({"last_differentiated": 2}, "only the last 2 of the inner steps"),
        "unadapted query": ({"query_at": 0}, "unadapted parameters"),
        "query on support": ({"sets": lambda s: (*s[:2], *s[:2])}, "measured on the support set"),
        "inner on query": ({"sets": lambda s: (*s[2:], *s[2:])}, "adapts on the query set"),
        "swapped sets": ({"sets": lambda s: (*s[2:], *s[:2])}, "sets are swapped"),
        "both sets": ({"sets": joined}, "support and query together"),
        "first task": ({"losses": lambda v: v[0]}, "only the first task"),
        "last task": ({"losses": lambda v: v[-1]}, "only the last task"),
        "first task missing": ({"losses": lambda v: sum(v[1:]) / len(v)}, "first task"),
        "last task missing": ({"losses": lambda v: sum(v[:-1]) / len(v)}, "last task"),
        "sum over tasks": ({"losses": sum}, "times B"),
        "one step too few": ({"steps": STEPS - 1}, "one inner step too few"),
        "one step too many": ({"steps": STEPS + 1}, "one inner step too many"),
        "a single step": ({"steps": 1}, "a single inner step"),
        "gradient at the start": ({"at": "start"}, "takes the gradient at the initial"),
        "step from the start": ({"start": "start"}, "starts from the initial"),
        "step twice": ({"lr": 2 * LR}, "step size is twice"),
        "step half": ({"lr": LR / 2}, "step size is half"),
        "ascent": ({"lr": -LR}, "ascends"),
        "inner sum": ({"lr": 7 * LR / 49}, "divided by the number of support examples"),
        "step over tasks": ({"lr": LR / 3}, "divided by the number of tasks"),
        "momentum": ({"update": momentum}, "momentum"),
        "Adam": ({"update": adam, "lr": LR}, "Adam"),
        "weight decay": ({"update": decay}, "weight decay"),
        "clipped": ({"update": clipped(False)}, "clipped to norm 0.2"),
        "clipped, detached": ({"update": clipped(True)}, "clipping not differentiated"),
        "entries clipped": ({"update": entries_clipped}, "entries are clipped"),
        "a weight stays": ({"factors": {weight: 0.0}}, f"does not adapt {weight}"),
        "a bias stays": ({"factors": {bias: 0.0}}, f"does not adapt {bias}"),
        "biases stay": ({"factors": biases}, "does not adapt"),
        "a weight twice": ({"factors": double}, f"updates {weight} twice"),
        "losses averaged": ({"every_step": True}, "after every step are averaged"),
        "a gradient of 0": ({"after": without_gradient(weight)}, f"{weight}: the gradient is 0"),
        "an outer step a task": ({"outer_step": 0.3}, "after every task"),
        "times 2": ({"losses": lambda v: 2 * torch.stack(v).mean()}, "times 2"),
    }


def joined(task):
    """Support and query set together as the support set."""
    xs, ys, xq, yq = task
    return torch.cat([xs, xq]), torch.cat([ys, yq]), xq, yq
