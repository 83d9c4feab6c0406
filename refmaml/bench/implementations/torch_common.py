"""What the implementations in PyTorch share: settings, tensors, threads."""

import os

import numpy as np

from refmaml import layers
from refmaml.layers.walk import all_layers


def first_use():
    """The derivative of a square."""
    import torch

    torch.ones(1, requires_grad=True).square().backward()


def choices(workload):
    """Settings of every implementation: threads, and the form of batch-norm if any."""
    has_norm = any(
        isinstance(layer, layers.BatchNorm2d) for layer in all_layers(workload.net().layers)
    )
    return {
        "threads": ("all",) if workload.gflop > 1 else (1, "all"),
        "batch_norm": ("fused", "primitive") if has_norm else ("fused",),
    }


def tensors(workload, dtype, device):
    """(theta by name, [x_support, y_support, x_query, y_query]) on "cpu" or "cuda"."""
    import torch

    batch, named = workload.batch(dtype), workload.net().named(workload.theta(dtype))
    theta = {name: torch.from_numpy(a.copy()).to(device) for name, a in named.items()}
    return theta, [torch.from_numpy(a).to(device) for _, a in batch.named]


def use_threads(threads):
    """Set the threads inside each operation; "all": one for each available core."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)) if threads == "all" else threads)


def flat(gradients):
    """Tensors in the order of the flat vector, as one NumPy array (P,)."""
    return np.concatenate([g.detach().cpu().numpy().ravel() for g in gradients])
