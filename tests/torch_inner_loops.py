"""Inner loops of PyTorch, differentiated by autograd: right ones, and planted mistakes.

A step is (phi, g, state, k, alpha) -> (phi, state), each a dict of tensors.
"""

from math import cos, pi

import torch
from implementations import tasks


def start_of(params):
    return {n: p.clone().requires_grad_() for n, p in params.items()}


def slope(problem, phi, x, y, graph=True):
    grads = torch.autograd.grad(problem.loss(phi, x, y), list(phi.values()), create_graph=graph)
    return dict(zip(phi, grads, strict=True))


def derivative(value, theta):
    return dict(zip(theta, torch.autograd.grad(value, list(theta.values())), strict=True))


def descend(problem, phi, x, y, step, graph=True):
    state = None
    for k in range(problem.method.inner_steps):
        g = slope(problem, phi, x, y, graph)
        phi, state = step(phi, g, state, k, problem.method.inner_lr)
    return phi


def maml(step, graph=True, reduce=lambda losses: torch.stack(losses).mean()):
    """MAML with an inner update of its own."""

    def fn(problem, params, batch):
        theta, losses = start_of(params), []
        for xs, ys, xq, yq in tasks(batch):
            losses.append(problem.loss(descend(problem, theta, xs, ys, step, graph), xq, yq))
        return derivative(reduce(losses), theta)

    return fn


# ---- updates -------------------------------------------------------------------------


def rate(c):
    return lambda phi, g, s, k, a: ({n: phi[n] - c * a * g[n] for n in phi}, s)


def own_step_size(a):
    return lambda phi, g, s, k, _: ({n: phi[n] - a * g[n] for n in phi}, s)


def adam(root=0.0, eps=1e-8, detach=""):
    """eps_root before the bias correction, as in optax; detach: "v" """

    def step(phi, g, s, k, a):
        m, v = s or ({n: 0.0 for n in g}, {n: 0.0 for n in g})
        of_root = {n: x.detach() if detach == "v" else x for n, x in g.items()}
        m = {n: 0.9 * m[n] + 0.1 * g[n] for n in g}
        v = {n: 0.999 * v[n] + 0.001 * of_root[n] ** 2 for n in g}
        c1, c2 = 1 - 0.9 ** (k + 1), 1 - 0.999 ** (k + 1)
        d = {n: m[n] / c1 / (((v[n] + root) / c2).sqrt() + eps) for n in g}
        return {n: phi[n] - a * d[n] for n in phi}, (m, v)

    return step


def momentum(mu, decay=0.0, nesterov=False, detach=False):
    def step(phi, g, m, k, a):
        g = {n: g[n] + decay * phi[n] for n in g}
        before = {n: 0.0 if m is None else m[n].detach() if detach else m[n] for n in g}
        m = {n: mu * before[n] + g[n] for n in g}
        d = {n: g[n] + mu * m[n] for n in g} if nesterov else m
        return {n: phi[n] - a * d[n] for n in phi}, m

    return step


def clipped(limit, eps=1e-6, detach=False):
    """As clip_grad_norm_ computes it."""

    def step(phi, g, s, k, a):
        size = torch.stack([x.norm() for x in g.values()]).norm()
        size = size.detach() if detach else size
        factor = (limit / (size + eps)).clamp(max=1.0)
        return {n: phi[n] - a * factor * g[n] for n in phi}, s

    return step


def cosine(phi, g, s, k, a):
    return {n: phi[n] - a * 0.5 * (1 + cos(pi * k / 3)) * g[n] for n in phi}, s


# ---- whole loops ---------------------------------------------------------------------


def weighted(losses):
    w = torch.arange(1.0, len(losses) + 1).to(losses[0])
    return (w * torch.stack(losses)).sum() / w.sum()


def chained(problem, params, batch):
    """Fast weights that are not put back between tasks."""
    theta, losses = start_of(params), []
    phi = theta
    for xs, ys, xq, yq in tasks(batch):
        phi = descend(problem, phi, xs, ys, rate(1.0))
        losses.append(problem.loss(phi, xq, yq))
    return derivative(torch.stack(losses).mean(), theta)


def optimizer(copied):
    """First-order MAML by torch.optim on one set of weights, put back from a snapshot;
    copied: whether the snapshot has numbers of its own, not those of the weights."""

    def fn(problem, params, batch):
        live = start_of(params)
        snapshot = {n: p.data.clone() if copied else p.data for n, p in live.items()}
        total = {n: torch.zeros_like(p) for n, p in params.items()}
        for xs, ys, xq, yq in tasks(batch):
            with torch.no_grad():
                for n, p in live.items():
                    p.copy_(snapshot[n])
            sgd = torch.optim.SGD(live.values(), lr=problem.method.inner_lr)
            for _ in range(problem.method.inner_steps):
                sgd.zero_grad()
                problem.loss(live, xs, ys).backward()
                sgd.step()
            found = derivative(problem.loss(live, xq, yq), live)
            total = {n: t + found[n] / len(batch.x_support) for n, t in total.items()}
        return total

    return fn


def every_second_example(k, examples):
    return torch.arange(k % examples, examples, 2)


def mini_batches(problem, params, batch):
    theta, losses = start_of(params), []
    for xs, ys, xq, yq in tasks(batch):
        phi = theta
        for k in range(problem.method.inner_steps):
            i = every_second_example(k, len(xs))
            g = slope(problem, phi, xs[i], ys[i])
            phi = {n: phi[n] - problem.method.inner_lr * g[n] for n in phi}
        losses.append(problem.loss(phi, xq, yq))
    return derivative(torch.stack(losses).mean(), theta)


def proximal(strength):
    """The inner loss + strength/2 |phi - theta|^2."""

    def fn(problem, params, batch):
        theta, losses = start_of(params), []

        def pulled(phi, g, s, k, a):
            pull = {n: g[n] + strength * (phi[n] - theta[n]) for n in phi}
            return {n: phi[n] - a * pull[n] for n in phi}, s

        for xs, ys, xq, yq in tasks(batch):
            losses.append(problem.loss(descend(problem, theta, xs, ys, pulled), xq, yq))
        return derivative(torch.stack(losses).mean(), theta)

    return fn


def lazy(problem, params, batch):
    """K steps without a graph, then the whole leap as one step's Jacobian."""
    theta, losses = start_of(params), []
    length = problem.method.inner_steps * problem.method.inner_lr
    for xs, ys, xq, yq in tasks(batch):
        end = descend(problem, start_of(params), xs, ys, rate(1.0), graph=False)
        g = slope(problem, theta, xs, ys)
        one = {n: theta[n] - length * g[n] for n in theta}
        phi = {n: end[n].detach() + one[n] - one[n].detach() for n in theta}
        losses.append(problem.loss(phi, xq, yq))
    return derivative(torch.stack(losses).mean(), theta)


def learned_rates(of_raw, raw_of):
    """Meta-SGD whose step sizes are of_raw(raw); the gradient is that of raw."""

    def fn(problem, params, batch):
        names = [n for n in params if not n.startswith("inner_lr.")]
        theta = start_of({n: params[n] for n in names})
        raw = start_of({n: raw_of(params[f"inner_lr.{n}"]) for n in names})

        def step(phi, g, state, k, alpha):
            return {n: phi[n] - of_raw(raw[n]) * g[n] for n in g}, state

        losses = []
        for xs, ys, xq, yq in tasks(batch):
            losses.append(problem.loss(descend(problem, theta, xs, ys, step), xq, yq))
        value = torch.stack(losses).mean()
        found = derivative(value, {**theta, **{f"inner_lr.{n}": r for n, r in raw.items()}})
        return found

    return fn


def implicit(inverse):
    """iMAML by gradient descent, with inverse(A, q) for A^-1 q, A = I + H / lambda."""

    def fn(problem, params, batch):
        lam, rows = problem.method.regularization, []
        for xs, ys, xq, yq in tasks(batch):
            phi = start_of(params)
            for _ in range(80):
                g = slope(problem, phi, xs, ys, graph=False)
                phi = start_of({
                    n: (p - 0.9 / lam * (g[n] + lam * (p - params[n]))).detach()
                    for n, p in phi.items()
                })  # fmt: skip
            q = list(slope(problem, phi, xq, yq, graph=False).values())
            g = list(slope(problem, phi, xs, ys).values())

            def A(v, g=g, phi=phi):
                H = torch.autograd.grad(g, list(phi.values()), v, retain_graph=True)
                return [a + h / lam for a, h in zip(v, H, strict=True)]

            rows.append(inverse(A, q))
        names = list(params)
        return {n: sum(row[i] for row in rows) / len(rows) for i, n in enumerate(names)}

    return fn


def neumann(step, terms, in_front=True):
    """step sum_(j <= terms) (I - step A)^j q."""

    def inverse(A, q):
        v = total = q
        for _ in range(terms):
            v = [a - step * b for a, b in zip(v, A(v), strict=True)]
            total = [a + b for a, b in zip(total, v, strict=True)]
        return [(step if in_front else 1) * a for a in total]

    return inverse


def never_replaced(A, q):
    return [2 * a - b for a, b in zip(q, A(q), strict=True)]


# ---- stages --------------------------------------------------------------------------


def with_stages(step):
    """MAML that also returns inner_grad, phi, query_grad and the losses."""

    def fn(problem, params, batch):
        K, theta = problem.method.inner_steps, start_of(params)
        inner, after = [[] for _ in range(K)], [[] for _ in range(K)]
        losses, query = [], []
        for xs, ys, xq, yq in tasks(batch):
            phi, state = theta, None
            for k in range(K):
                g = slope(problem, phi, xs, ys)
                phi, state = step(phi, g, state, k, problem.method.inner_lr)
                inner[k].append(g)
                after[k].append(phi)
            losses.append(problem.loss(phi, xq, yq))
            grads = torch.autograd.grad(losses[-1], list(phi.values()), retain_graph=True)
            query.append(dict(zip(phi, grads, strict=True)))
        return {
            "grad": derivative(torch.stack(losses).mean(), theta),
            "loss": torch.stack(losses).detach(),
            "inner_grad": [stacked(rows) for rows in inner],
            "phi": [stacked(rows) for rows in after],
            "query_grad": stacked(query),
        }

    return fn


def stacked(rows):
    return {n: torch.stack([row[n] for row in rows]).detach() for n in rows[0]}
