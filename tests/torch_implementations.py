"""Meta-gradients by PyTorch's autograd: right ones, and the mistakes that autograd
invites."""

from implementations import ANIL, CAVIA, FOMAML, IMAML, MAML, MAMLPP, META_SGD, REPTILE, K, tasks
from wrong_implementations_table import Implementation

import refmaml as rm
from refmaml.autodiff import formulas


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


def torch_adapt(problem, phi, rates, x, y, create_graph=True, loss=None, detach=()):
    """phi_0 .. phi_K."""
    import torch

    phis = [phi]
    for A in rates:
        value = (loss or problem.loss)(phis[-1], x, y)
        grads = torch.autograd.grad(value, list(phis[-1].values()), create_graph=create_graph)
        phis.append({n: p - A[n] * g for (n, p), g in zip(phis[-1].items(), grads, strict=True)})
    return phis


def torch_maml(
    problem,
    params,
    batch,
    create_graph=None,
    loss=None,
    query_loss=None,
    weights=None,
    reduce=None,
    rate=1.0,
    combine=None,
):
    """Every differentiated method: MAML, ANIL, their first-order forms, Meta-SGD,
    MAML++, CAVIA, ERM."""
    import torch

    method, losses = problem.method, []
    create_graph = (
        not isinstance(method, rm.FirstOrderMAML) if create_graph is None else create_graph
    )
    start = leaves(params)
    for xs, ys, xq, yq in tasks(batch):
        weights_ = {n: start[n] for n in problem.net.shapes}
        if isinstance(method, rm.CAVIA):
            weights_ = {
                n: torch.zeros_like(p).requires_grad_() if n.endswith("context") else p
                for n, p in weights_.items()
            }
        rates = (
            [{n: rate * a for n, a in A.items()} for A in torch_rates(problem, start)]
            if hasattr(method, "inner_lr")
            else []
        )
        phis = torch_adapt(problem, weights_, rates, xs, ys, create_graph, loss)
        judge = query_loss or loss or problem.loss
        if isinstance(method, rm.MAMLPlusPlus):
            losses.append(sum(judge(phi, xq, yq) for phi in phis[1:]) / method.inner_steps)
        else:
            losses.append(judge(phis[-1], xq, yq))
    outer = (reduce or (lambda losses: torch.stack(losses).mean()))(losses)
    grads = torch.autograd.grad(outer, list(start.values()), allow_unused=True)
    return {
        n: g
        for n, g in zip(start, grads, strict=True)
        if g is not None or not n.endswith("context")
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
    """Gradient descent on the proximal problem, CG with Hessian-vector products by
    autograd."""
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


def norm_loss(batch_norm):
    """loss(problem) with a given batch_norm(layer, w, x)."""
    from refmaml.autodiff import torch_autodiff
    from refmaml.layers import BatchNorm2d

    forward = formulas.FORWARD | {BatchNorm2d: lambda f, layer, w, x: batch_norm(layer, w, x)}
    return lambda problem: (
        lambda params, x, y: formulas.named_loss(
            torch_autodiff.framework(), problem.net, params, x, y, forward, formulas.LOSSES
        )
    )


def detached_norm(layer, w, x):
    mean, var = (
        x.mean((0, 2, 3), keepdim=True).detach(),
        x.var((0, 2, 3), unbiased=False, keepdim=True).detach(),
    )
    return (x - mean) / (var + layer.eps) ** 0.5 * w["weight"].reshape(-1, 1, 1) + w[
        "bias"
    ].reshape(-1, 1, 1)


def eval_norm(layer, w, x):
    import torch
    from torch.nn import functional as F

    running = torch.zeros_like(w["bias"]).detach(), torch.ones_like(w["bias"]).detach()
    return F.batch_norm(x, *running, w["weight"], w["bias"], training=False, eps=layer.eps)


def torch_norm(layer, w, x, eps=1e-5):
    from torch.nn import functional as F

    return F.batch_norm(x, None, None, w["weight"], w["bias"], training=True, eps=eps)


def unbiased_norm(layer, w, x):
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=True, keepdim=True)
    return (x - mean) / (var + layer.eps) ** 0.5 * w["weight"].reshape(-1, 1, 1) + w[
        "bias"
    ].reshape(-1, 1, 1)


def normed(batch_norm, everywhere=True):
    """MAML with a given batch-norm, everywhere or on the query set only."""

    def function(problem, params, batch):
        loss = norm_loss(batch_norm)(problem)
        return torch_maml(
            problem, params, batch, **({"loss": loss} if everywhere else {"query_loss": loss})
        )

    return function


def kept_statistics(problem, params, batch):
    """momentum=1, then evaluation mode: query points are normalised with the statistics
    of the last support batch."""
    kept = {}

    def seen(layer, w, x):
        n = x.numel() // x.shape[1]
        kept[id(layer)] = (
            x.mean((0, 2, 3)).detach(),
            x.var((0, 2, 3), unbiased=False).detach() * n / (n - 1),
        )
        return torch_norm(layer, w, x, layer.eps)

    def used(layer, w, x):
        from torch.nn import functional as F

        return F.batch_norm(
            x, *kept[id(layer)], w["weight"], w["bias"], training=False, eps=layer.eps
        )

    return torch_maml(
        problem, params, batch, loss=norm_loss(seen)(problem), query_loss=norm_loss(used)(problem)
    )


def data_update(problem, params, batch):
    """phi.data -= alpha g: the graph from theta to phi is cut, and phi is theta itself,
    changed in place."""
    import torch

    start = leaves(params)
    for xs, ys, xq, yq in tasks(batch):
        phi = {n: p.clone().detach().requires_grad_() for n, p in start.items()}
        for _ in range(problem.method.inner_steps):
            for p, g in zip(
                phi.values(),
                torch.autograd.grad(problem.loss(phi, xs, ys), list(phi.values())),
                strict=True,
            ):
                p.data -= problem.method.inner_lr * g
        problem.loss(phi, xq, yq).backward()
    return {n: p.grad for n, p in start.items()}


def accumulating(problem, params, batch):
    """loss.backward() in the inner loop leaves its gradients in theta.grad."""
    start = leaves(params)
    for xs, ys, xq, yq in tasks(batch):
        import torch

        phi = start
        for _ in range(problem.method.inner_steps):
            loss = problem.loss(phi, xs, ys)
            grads = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
            (loss / len(batch.x_support)).backward(retain_graph=True)
            phi = {
                n: p - problem.method.inner_lr * g
                for (n, p), g in zip(phi.items(), grads, strict=True)
            }
        (problem.loss(phi, xq, yq) / len(batch.x_support)).backward()
    return {n: p.grad for n, p in start.items()}


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

CONV = ("quadratic", "conv")
TORCH = {
    "create_graph forgotten": Implementation(
        "1", "first-order", lambda *a: torch_maml(*a, create_graph=False)
    ),
    "losses_q[-1]": Implementation(
        "8",
        "only the last task counts, times B",
        lambda *a: torch_maml(*a, reduce=lambda losses: losses[-1]),
    ),
    "losses_q[-1], first-order": Implementation(
        "1+8",
        "first-order",
        lambda *a: torch_maml(*a, create_graph=False, reduce=lambda q: q[-1] / len(q)),
    ),
    "sum": Implementation("10", "times B", lambda *a: torch_maml(*a, reduce=sum)),
    "swapped": Implementation("7", "swapped", swapped_sets(torch_maml)),
    "query is support": Implementation(
        "6", "measured on the support set", query_as_support(torch_maml)
    ),
    "summed inside": Implementation(
        "11",
        "summed over the support examples",
        lambda p, w, b: torch_maml(p, w, b, rate=b.x_support.shape[1]),
    ),
    ".data": Implementation("2", "None for every parameter", data_update),
    "backward inside": Implementation("12", "inner losses' own gradients", accumulating),
    "ANIL, first-order": Implementation(
        "1", "first-order", lambda *a: torch_maml(*a, create_graph=False), ANIL
    ),
    "Meta-SGD, first-order": Implementation(
        "1", "first-order", lambda *a: torch_maml(*a, create_graph=False), META_SGD
    ),
    "CAVIA, first-order": Implementation(
        "1", "first-order", lambda *a: torch_maml(*a, create_graph=False), CAVIA
    ),
    "detached statistics": Implementation(
        "19", "treated as constants", normed(detached_norm), probes=CONV
    ),
    "evaluation mode": Implementation("19", "evaluation mode", normed(eval_norm), probes=CONV),
    "evaluation mode on queries": Implementation(
        "19", "on the query set only", normed(eval_norm, everywhere=False), probes=CONV
    ),
    "torch's eps": Implementation("21", "eps = 1e-5", normed(torch_norm), probes=CONV),
    "unbiased": Implementation("21", "unbiased", normed(unbiased_norm), probes=CONV),
    "momentum 1": Implementation(
        "21", "the support set's statistics", kept_statistics, probes=CONV
    ),
    "iMAML sign": Implementation(
        "30",
        "wrong sign in the linear system",
        lambda *a: torch_imaml(*a, sign=-1.0),
        IMAML,
        ("quadratic",),
    ),
    "iMAML 2 lambda": Implementation(
        "28", "2 lambda", lambda *a: torch_imaml(*a, outer=2.0), IMAML, ("quadratic",)
    ),
}
