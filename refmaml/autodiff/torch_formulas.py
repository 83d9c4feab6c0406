"""Networks in PyTorch, written for speed with PyTorch's own operations.

batch_norm  "fused": F.batch_norm. It is right reverse over reverse, which is all that a
            meta-gradient needs (torch_autodiff.py says where it is wrong).
            "primitive": mean, product and power, as in formulas.py.
            Which of the two is faster depends on the net.

Tried and slower: max-pooling as torch.maximum of every second row and column, three
times slower than F.max_pool2d; convolution as unfold and matrix product, twice slower
than F.conv2d.
"""

from refmaml import layers
from refmaml.autodiff import formulas
from refmaml.autodiff.torch_autodiff import framework


def make_loss(net, batch_norm):
    """A function of (parameters by name, x (N, ...), y): the loss of one task."""
    f, replaced = framework(), fast_layers()
    if batch_norm == "fused":
        replaced[layers.BatchNorm2d] = fused_batch_norm
    forward = formulas.FORWARD | replaced
    losses = formulas.LOSSES | {layers.CrossEntropy: cross_entropy}
    return lambda parameters, x, y: formulas.named_loss(f, net, parameters, x, y, forward, losses)


def fast_layers():
    """{class of layer: a formula that is faster than the one in formulas.py}."""
    import torch
    from torch.nn import functional as F

    return {
        layers.Conv2d: conv2d,
        layers.ReLU: lambda f, layer, w, x: torch.relu(x),
        layers.Linear: lambda f, layer, w, x: F.linear(x, w["weight"], w.get("bias")),
    }


def conv2d(f, layer, w, x):
    from torch.nn import functional as F

    _, stride, ((top, bottom), (left, right)), _ = layer.geometry(tuple(x.shape[2:]))
    padding = (top, left)
    if padding != (bottom, right):
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    windows = stride, padding, layer.dilation, layer.groups
    return F.conv2d(x, w["weight"], w.get("bias"), *windows)


def fused_batch_norm(f, layer, w, x):
    from torch.nn import functional as F

    # Without a weight, the second derivative of F.batch_norm raises an error.
    scale = w["weight"] if layer.gamma else x.new_ones(x.shape[1])
    return F.batch_norm(x, None, None, scale, w.get("bias"), training=True, eps=layer.eps)


def cross_entropy(f, loss, z, labels):
    from torch.nn import functional as F

    reduction = "mean" if loss.reduction == "mean" else "sum"
    scale = z.shape[1] / len(z) if loss.reduction == "sum/K" else 1
    return F.cross_entropy(z, labels, reduction=reduction) * scale
