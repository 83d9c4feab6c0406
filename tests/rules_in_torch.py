"""Inner loops as users of PyTorch write them: parameters by name, a step after a step.

A step is a function (phi, g, state, t) -> d: phi and g are dicts of tensors, state is
a dict that the step fills, t = 1, 2, .. its number. The inner loop multiplies d by the
step size.
"""

import torch

from refmaml.autodiff.formulas import mean_over_tasks, task_loss
from refmaml.autodiff.torch_autodiff import framework


def named(net, w):
    """{name: view} of the flat parameters w."""
    return dict(zip(net.shapes, (w[part] for part in net.blocks), strict=True))


def flat(phi):
    return torch.cat(list(phi.values()))


def meta_gradient(net, theta, batch, step, lr, K, anchor=0.0, sets=None, extra=()):
    """(dM/dtheta (P,), *dM/d(extra tensors)), means over tasks, by autograd.

    lr      the step size, or one for each step
    sets    the places of the support set that each step sees; None: all of it
    """
    f = framework()
    rates = lr if isinstance(lr, tuple) else (lr,) * K

    def of_task(*task):
        xs, ys, xq, yq = map(torch.from_numpy, task)
        start = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        phi, state = named(net, start), {}
        for k in range(K):
            chosen = slice(None) if sets is None else torch.from_numpy(sets[k])
            loss = task_loss(f, net, flat(phi), xs[chosen], ys[chosen])
            if anchor:
                loss = loss + anchor / 2 * ((flat(phi) - start) ** 2).sum()
            grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            d = step(phi, dict(zip(phi, grads, strict=True)), state, k + 1)
            phi = {n: p - rates[k] * d[n] for n, p in phi.items()}
        end = task_loss(f, net, flat(phi), xq, yq)
        found = torch.autograd.grad(end, [start, *extra])
        return torch.cat([a.reshape(-1) for a in found])

    both = mean_over_tasks(net, of_task, *batch.arrays)
    P = net.num_params
    return both if not extra else (both[:P], *both[P:])


# ---- rules as steps ------------------------------------------------------------------


def plain(phi, g, state, t):
    return g


def sign():
    def step(phi, g, state, t):
        return {n: torch.sign(a) for n, a in g.items()}

    return step


def sgd(momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0, detached=False):
    """detached: the buffer of the step before is a constant, which is wrong."""

    def step(phi, g, state, t):
        d = {n: g[n] + weight_decay * phi[n] for n in phi}
        if momentum == 0:
            return d
        old = {n: b.detach() if detached else b for n, b in state.items()}
        new = {n: momentum * old[n] + (1 - dampening) * d[n] if old else d[n] for n in d}
        state.update(new)
        return {n: d[n] + momentum * new[n] if nesterov else new[n] for n in d}

    return step


def adam(betas, eps, eps_root=0.0, weight_decay=0.0, decoupled=False, root="outside"):
    """root: "outside" has eps_root beside v / c2, "inside" beside v."""
    b1, b2 = betas

    def step(phi, g, state, t):
        d = {}
        for n in phi:
            h = g[n] if decoupled else g[n] + weight_decay * phi[n]
            m, v = state.get(n, (torch.zeros_like(h), torch.zeros_like(h)))
            m, v = b1 * m + (1 - b1) * h, b2 * v + (1 - b2) * h**2
            state[n] = m, v
            c1, c2 = 1 - b1**t, 1 - b2**t
            r = torch.sqrt(v / c2 + eps_root if root == "outside" else (v + eps_root) / c2)
            d[n] = m / c1 / (r + eps) + (weight_decay * phi[n] if decoupled else 0)
        return d

    return step


def rmsprop(alpha, eps, eps_root=0.0, weight_decay=0.0, momentum=0.0, centered=False):
    def step(phi, g, state, t):
        d = {}
        for n in phi:
            h = g[n] + weight_decay * phi[n]
            v, a, b = state.get(n, (torch.zeros_like(h),) * 3)
            v, a = alpha * v + (1 - alpha) * h**2, alpha * a + (1 - alpha) * h
            r = torch.sqrt((v - a**2 if centered else v) + eps_root)
            b = momentum * b + h / (r + eps)
            state[n], d[n] = (v, a, b), b
        return d

    return step


def adagrad(lr_decay, weight_decay, initial_accumulator_value, eps, eps_root):
    def step(phi, g, state, t):
        d = {}
        for n in phi:
            h = g[n] + weight_decay * phi[n]
            state[n] = state.get(n, initial_accumulator_value) + h**2
            d[n] = h / (torch.sqrt(state[n] + eps_root) + eps) / (1 + (t - 1) * lr_decay)
        return d

    return step


def clip(step, norm=None, value=None, per_tensor=False):
    def clipped(phi, g, state, t):
        if value is not None:
            return step(phi, {n: a.clamp(-value, value) for n, a in g.items()}, state, t)
        size = {n: a.norm() for n, a in g.items()}
        if not per_tensor:
            size = dict.fromkeys(g, torch.stack(list(size.values())).norm())
        factor = {n: torch.clamp(norm / (s + 1e-6), max=1.0) for n, s in size.items()}
        return step(phi, {n: factor[n] * a for n, a in g.items()}, state, t)

    return clipped
