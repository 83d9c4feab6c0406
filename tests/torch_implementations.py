"""Right meta-gradients by PyTorch's autograd."""

from implementations import ANIL, CAVIA, FOMAML, IMAML, MAML, MAMLPP, META_SGD, REPTILE, K, tasks

import refmaml as rm


def leaves(params):
    return {n: p.clone().requires_grad_() for n, p in params.items()}


def torch_rates(problem, params):
    """The step size of each array in each step."""
    method, net = problem.method, problem.net
    if isinstance(method, rm.MetaSGD):
        return [{n: params[f"inner_lr.{n}"] for n in net.shapes}] * method.inner_steps
    if isinstance(method, rm.MAMLPlusPlus):
        return [
            {n: params[f"inner_lr.{n}"][k] for n in net.shapes} for k in range(method.inner_steps)
        ]
    mask = net.named(net.mask(getattr(method, "adapts", ("*",))))
    return [{n: method.inner_lr * float(mask[n].any()) for n in net.shapes}] * getattr(
        method, "inner_steps", 0
    )


def torch_adapt(problem, phi, rates, x, y, create_graph=True, loss=None):
    """phi_0 .. phi_K."""
    import torch

    phis = [phi]
    for A in rates:
        value = (loss or problem.loss)(phis[-1], x, y)
        grads = torch.autograd.grad(value, list(phis[-1].values()), create_graph=create_graph)
        phis.append({n: p - A[n] * g for (n, p), g in zip(phis[-1].items(), grads, strict=True)})
    return phis


def torch_maml(
    problem, params, batch, create_graph=None, loss=None, query_loss=None, reduce=None, rate=1.0
):
    """Every differentiated method.

    MAML, ANIL, their first-order forms, Meta-SGD, MAML++, CAVIA, ERM. The last five
    arguments plant mistakes.
    """
    import torch

    method = problem.method
    if create_graph is None:
        create_graph = not isinstance(method, rm.FirstOrderMAML)
    start, query_losses = leaves(params), []
    for xs, ys, xq, yq in tasks(batch):
        rates = []
        if hasattr(method, "inner_lr"):
            rates = [{n: rate * a for n, a in A.items()} for A in torch_rates(problem, start)]
        phi = inner_start(problem, start)
        phis = torch_adapt(problem, phi, rates, xs, ys, create_graph, loss)
        query = query_loss or loss or problem.loss
        if isinstance(method, rm.MAMLPlusPlus):
            query_losses.append(sum(query(phi, xq, yq) for phi in phis[1:]) / method.inner_steps)
        else:
            query_losses.append(query(phis[-1], xq, yq))
    outer = (reduce or (lambda losses: torch.stack(losses).mean()))(query_losses)
    grads = torch.autograd.grad(outer, list(start.values()), allow_unused=True)
    pairs = zip(start, grads, strict=True)
    return {n: g for n, g in pairs if g is not None or not n.endswith("context")}


def inner_start(problem, start):
    """The net's parameters; CAVIA's context starts from 0 in each task."""
    import torch

    phi = {n: start[n] for n in problem.net.shapes}
    if not isinstance(problem.method, rm.CAVIA):
        return phi
    return {
        n: torch.zeros_like(p).requires_grad_() if n.endswith("context") else p
        for n, p in phi.items()
    }


def torch_reptile(problem, params, batch):
    import torch

    total = {n: torch.zeros_like(p) for n, p in params.items()}
    for xs, ys, _, _ in tasks(batch):
        phi = torch_adapt(problem, leaves(params), torch_rates(problem, params), xs, ys, False)[-1]
        total = {
            n: t + (params[n] - phi[n].detach()) / len(batch.x_support) for n, t in total.items()
        }
    return total


def torch_imaml(problem, params, batch, sign=1.0, outer=1.0):
    """Gradient descent on the proximal problem, then CG.

    Hessian-vector products are by autograd.
    """
    import torch

    m, names = problem.method, list(params)
    rows = []
    for xs, ys, xq, yq in tasks(batch):
        phi = leaves(params)
        for _ in range(m.inner_steps):
            grads = torch.autograd.grad(problem.loss(phi, xs, ys), list(phi.values()))
            phi = {
                n: (p - m.inner_lr * (g + m.regularization * (p - params[n])))
                .detach()
                .requires_grad_()
                for (n, p), g in zip(phi.items(), grads, strict=True)
            }
        q = torch.autograd.grad(problem.loss(phi, xq, yq), list(phi.values()))
        first = torch.autograd.grad(
            problem.loss(phi, xs, ys), list(phi.values()), create_graph=True
        )

        def product(v, first=first, phi=phi):
            Hv = torch.autograd.grad(first, list(phi.values()), v, retain_graph=True)
            return [a + sign * b / (outer * m.regularization) for a, b in zip(v, Hv, strict=True)]

        rows.append(torch_cg(product, q, m.cg_steps))
    return {n: sum(row[i] for row in rows) / len(rows) for i, n in enumerate(names)}


def torch_cg(product, b, iterations):
    x, r, p = [0 * a for a in b], list(b), list(b)
    rr = sum((a * a).sum() for a in r)
    for _ in range(iterations):
        if rr < 1e-30:
            break
        Ap = product(p)
        a = rr / sum((u * v).sum() for u, v in zip(p, Ap, strict=True))
        x, r = (
            [u + a * v for u, v in zip(x, p, strict=True)],
            [u - a * v for u, v in zip(r, Ap, strict=True)],
        )
        new = sum((u * u).sum() for u in r)
        p, rr = [u + new / rr * v for u, v in zip(r, p, strict=True)], new
    return x


def swapped_sets(fn):
    return lambda problem, params, batch: fn(
        problem,
        params,
        batch._replace(
            x_support=batch.x_query,
            y_support=batch.y_query,
            x_query=batch.x_support,
            y_query=batch.y_support,
        ),
    )


def query_as_support(fn):
    return lambda problem, params, batch: fn(
        problem, params, batch._replace(x_query=batch.x_support, y_query=batch.y_support)
    )


TORCH_RIGHT = [
    (torch_maml, m)
    for m in (MAML, FOMAML, ANIL, rm.FirstOrderANIL(0.1, K), META_SGD, MAMLPP, CAVIA, rm.ERM())
]
TORCH_RIGHT += [(torch_reptile, REPTILE), (torch_imaml, IMAML)]
