"""The nets in PyTorch as somebody would write them who wants them fast: its own operations wherever it has them.

batch_norm  "fused": F.batch_norm. Reverse over reverse it is right, which is all a meta-gradient needs (oracles/torch_autodiff.py says
            where it is not); or "primitive": mean, product and power, as the oracle has it. Which is faster depends on the net.
Taking every second row and column with torch.maximum is three times slower than F.max_pool2d, an unfolded convolution twice slower than
F.conv2d; both were tried.
"""

import os

import numpy as np

from refmaml import layers
from refmaml.autodiff import formulas
from refmaml.autodiff.torch_autodiff import framework


def first_use():
    """The derivative of a square."""
    import torch

    torch.ones(1, requires_grad=True).square().backward()


def choices(workload):
    """What every contestant with PyTorch may set: threads, and batch-norm where there is any."""
    norms = any(isinstance(layer, layers.BatchNorm2d) for layer in workload.net().layers)
    return {
        "threads": ("all",) if workload.gflop > 1 else (1, "all"),
        "batch_norm": ("fused", "primitive") if norms else ("fused",),
    }


def make_loss(net, batch_norm):
    """(parameters by name, x (N, ...), y) -> the loss of one task."""
    import torch
    from torch.nn import functional as F

    def conv2d(f, layer, w, x):
        _, stride, ((top, bottom), (left, right)), _ = layer.geometry(tuple(x.shape[2:]))
        if (top, left) == (bottom, right):
            return F.conv2d(x, w["weight"], w.get("bias"), stride, (top, left))
        return F.conv2d(F.pad(x, (left, right, top, bottom)), w["weight"], w.get("bias"), stride)

    def fused_batch_norm(f, layer, w, x):
        scale = (
            w["weight"] if layer.gamma else x.new_ones(x.shape[1])
        )  # without one its second derivative fails
        return F.batch_norm(x, None, None, scale, w.get("bias"), training=True, eps=layer.eps)

    def cross_entropy(f, loss, z, labels):
        return F.cross_entropy(
            z, labels, reduction="mean" if loss.reduction == "mean" else "sum"
        ) * (z.shape[1] / len(z) if loss.reduction == "sum/K" else 1)

    faster = {
        layers.Conv2d: conv2d,
        layers.ReLU: lambda f, layer, w, x: torch.relu(x),
        layers.Linear: lambda f, layer, w, x: F.linear(x, w["weight"], w.get("bias")),
    }
    fused = {layers.BatchNorm2d: fused_batch_norm} if batch_norm == "fused" else {}
    forward, losses, f = (
        formulas.FORWARD | faster | fused,
        formulas.LOSSES | {layers.CrossEntropy: cross_entropy},
        framework(),
    )
    return lambda parameters, x, y: formulas.named_loss(f, net, parameters, x, y, forward, losses)


def tensors(workload, dtype, device):
    """(the start by name, [x_support, y_support, x_query, y_query]), on "cpu" or "cuda"."""
    import torch

    batch = workload.batch(dtype)
    named = {
        name: torch.from_numpy(a.copy()).to(device)
        for name, a in workload.net().named(workload.theta(dtype)).items()
    }
    return named, [
        torch.from_numpy(a).to(device)
        for a in (batch.x_support, batch.y_support, batch.x_query, batch.y_query)
    ]


def use_threads(threads):
    """So many threads inside each operation; "all": as many as there are processors to run on."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)) if threads == "all" else threads)


def flat(gradients):
    """Tensors in the order of the flat vector as one NumPy array (P,)."""
    return np.concatenate([g.detach().cpu().numpy().ravel() for g in gradients])
