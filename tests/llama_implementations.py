"""LLAMA's meta-gradient written by hand in NumPy and in PyTorch, right and wrong."""

import numpy as np

STEP = 1e-30


def tasks(batch):
    return list(zip(*batch, strict=True))


# ---- NumPy: every choice that a mistake changes is an argument -----------------------


def flat(net, named):
    return np.concatenate([named[name].ravel() for name in net.shapes])


def named(net, vector):
    parts = net.parameters.slices
    return {name: vector[parts[name]].reshape(shape) for name, shape in net.shapes.items()}


class Task:
    """One task's losses as functions of a flat vector."""

    def __init__(self, problem, xs, ys, xq, yq):
        self.problem, self.net = problem, problem.net
        self.support, self.query = (xs, ys), (xq, yq)

    def gradient(self, phi, of):
        return flat(self.net, self.problem.gradient(named(self.net, phi), *of))

    def hvp(self, phi, of, v):
        return flat(self.net, self.problem.hvp(named(self.net, phi), *of, named(self.net, v)))

    def hessian(self, phi, of):
        return np.array([self.hvp(phi, of, e) for e in np.eye(len(phi))])

    def log_det_gradient(self, phi, of, tau=None, diagonal=False):
        """sum_i D^3 f[e_i, A e_i]."""
        tau = self.problem.method.precision if tau is None else tau
        M, unit = self.hessian(phi, of) + tau * np.eye(len(phi)), np.eye(len(phi))
        A = np.diag(1 / np.diag(M)) if diagonal else np.linalg.inv(M)
        pairs = zip(unit, A, strict=True)
        return sum(self.hvp(phi + 1j * STEP * e, of, a + 0j).imag / STEP for e, a in pairs)


def one_task(task, theta, factor=1.0, direct=False, at_theta=False, query=False, **matrix):
    method, phis = task.problem.method, [theta]
    for _ in range(method.inner_steps):
        phis.append(phis[-1] - method.inner_lr * task.gradient(phis[-1], task.support))
    of = task.query if query else task.support
    at = phis[0] if at_theta else phis[-1]
    term = factor * method.weight * task.log_det_gradient(at, of, **matrix) if factor else 0
    first = direct or at_theta
    lam = task.gradient(phis[-1], task.query) + (0 if first else term)
    for phi in phis[-2::-1]:
        lam = lam - method.inner_lr * task.hvp(phi, task.support, lam)
    return lam + (term if first else 0)


def by_hand(**choices):
    """A function in NumPy with some choices changed."""

    def gradient(problem, params, batch):
        theta = flat(problem.net, params)
        rows = [one_task(Task(problem, *task), theta, **choices) for task in tasks(batch)]
        return named(problem.net, np.mean(rows, axis=0))

    return gradient


# ---- PyTorch: autograd through a dense Hessian ---------------------------------------


def by_autograd(log_det=None, eta=lambda method: method.weight, at_theta=False, stop=False):
    """A function in PyTorch.

    log_det  (H, tau) -> the term; None: slogdet(H + tau I)
    """

    def gradient(problem, params, batch):
        import torch

        def hessian(phi, x, y):
            loss = problem.loss(phi, x, y)
            names = list(phi)
            rows = torch.autograd.grad(loss, [phi[n] for n in names], create_graph=True)
            g = torch.cat([r.reshape(-1) for r in rows])
            out = []
            for entry in g:
                row = torch.autograd.grad(
                    entry, [phi[n] for n in names], create_graph=True, allow_unused=True,
                    materialize_grads=True,
                )  # fmt: skip
                out.append(torch.cat([r.reshape(-1) for r in row]))
            return torch.stack(out)

        def term(H, tau):
            shifted = H + tau * torch.eye(len(H), dtype=H.dtype)
            return torch.linalg.slogdet(shifted)[1] if log_det is None else log_det(H, tau)

        method = problem.method
        theta = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        total = 0
        for xs, ys, xq, yq in tasks(batch):
            phi = theta
            for _ in range(method.inner_steps):
                grads = torch.autograd.grad(
                    problem.loss(phi, xs, ys), list(phi.values()), create_graph=True
                )
                phi = {
                    name: p - method.inner_lr * g
                    for (name, p), g in zip(phi.items(), grads, strict=True)
                }
            at = theta if at_theta else phi
            if stop:
                at = {name: p.detach().requires_grad_() for name, p in phi.items()}
            value = term(hessian(at, xs, ys), method.precision)
            total = total + problem.loss(phi, xq, yq) + eta(method) * value
        out = torch.autograd.grad(total / len(tasks(batch)), list(theta.values()))
        return dict(zip(theta, out, strict=True))

    return gradient


def clamped(H, tau):
    """The log determinant of public code: det clamped from below."""
    import torch

    return torch.log(torch.det(H + tau * torch.eye(len(H), dtype=H.dtype)).clamp(min=1e300))


def of_diagonal(H, tau):
    import torch

    return torch.log(torch.diagonal(H) + tau).sum()


def without_tau(H, tau):
    import torch

    return torch.linalg.slogdet(H)[1]
