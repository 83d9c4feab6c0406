"""Wrong meta-gradients by PyTorch: the mistakes that autograd invites."""

from implementations import ANIL, CAVIA, IMAML, META_SGD, tasks
from torch_implementations import leaves, query_as_support, swapped_sets, torch_imaml, torch_maml
from wrong_implementations_table import Implementation

from refmaml.autodiff import formulas


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
    """momentum=1, then evaluation mode.

    Query points are normalised with the statistics of the last support batch.
    """
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
    """phi.data -= alpha g, in place.

    The graph from theta to phi is cut.
    """
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
