"""Oracle: meta-gradients and Hessian-vector products by PyTorch's autograd, in float64.

Batch-norm is written in primitives (formulas.py), never F.batch_norm: PyTorch's fused
operation saves its mean and 1/std without their history. Reverse over reverse it is
right, but a third derivative, or forward mode inside reverse, is silently wrong by
several per cent (pytorch issue 186256; measured with torch 2.13). An oracle must be
right in every order of differentiation.
"""

from refmaml.autodiff.formulas import Framework, inner_rates, mean_over_tasks, task_loss, why_not


def missing():
    """None if PyTorch can be imported, otherwise the reason."""
    return why_not("torch")


def framework():
    """PyTorch as formulas.py uses it."""
    import torch
    from torch.nn import functional as F

    def padded_conv2d(x, w, stride, padding, dilation, groups):
        # The padding argument of F.conv2d is symmetric. F.pad starts from the last
        # axis.
        (top, bottom), (left, right) = padding
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, w, stride=stride, dilation=dilation, groups=groups)

    def constant(numbers, like):
        return torch.as_tensor(numbers, dtype=like.dtype, device=like.device)

    return Framework(torch, padded_conv2d, F.max_pool2d, F.avg_pool2d, torch.erf, constant)


def torch_meta_gradient(
    net, theta, batch, inner_lr, inner_steps, adapts=("*",), frozen=(), first_order=False
):
    """dM/dtheta (P,) in float64.

    M is the mean over tasks of the query loss after K inner steps.

    inner_lr, inner_steps, adapts, frozen  as in MAML
    first_order  no graph of the inner gradients: the gradient of first-order MAML
    Raises ArgumentError for a layer or loss that has no formula here.
    """
    import torch

    f, A = framework(), torch.from_numpy(inner_rates(net, inner_lr, adapts, frozen))

    def task_gradient(*task):
        x_support, y_support, x_query, y_query = map(torch.from_numpy, task)
        start = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        phi = start
        for _ in range(inner_steps):
            loss = task_loss(f, net, phi, x_support, y_support)
            (gradient,) = torch.autograd.grad(loss, phi, create_graph=not first_order)
            phi = phi - A * gradient
        return torch.autograd.grad(task_loss(f, net, phi, x_query, y_query), start)[0]

    return mean_over_tasks(
        net, task_gradient, batch.x_support, batch.y_support, batch.x_query, batch.y_query
    )


def torch_hvp(net, theta, x, y, v):
    """H v (P,) in float64, H the Hessian of the mean loss at theta (P,).

    The mean is over the tasks of x, y.

    Reverse over reverse mode: the gradient of gradient @ v.
    """
    import torch

    f = framework()

    def task_product(*task):
        w = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        loss = task_loss(f, net, w, *map(torch.from_numpy, task))
        (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
        return torch.autograd.grad(gradient @ torch.tensor(v, dtype=torch.float64), w)[0]

    return mean_over_tasks(net, task_product, x, y)
