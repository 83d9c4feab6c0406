"""Floating-point operations of nets: convolutions and linear layers only.

A multiply-add counts as two operations. All other layers count as none.

forward    2 O Ho Wo C kH kW for each image of a convolution, border zeros included; 2 O
           I for each row of a linear layer
gradient   y, dx, dw: three products of that size a layer; the first layer needs no dx
hvp        ry, rdx and rdw are two products each. The first layer has no rx, which
           leaves one product of ry, one of rdw and none of rdx
"""

from math import prod

from refmaml.layers import Conv2d, Linear


def products(net, shape):
    """Operations of a forward pass of one input of `shape`, for each product layer."""
    counts = []
    for layer in net.layers:
        out = layer.output_shape(shape)
        if isinstance(layer, (Conv2d, Linear)):
            counts.append(2 * prod(out) * prod(layer.shapes()["weight"][1:]))
        shape = out
    return counts


def gradient(net):
    """Operations of one gradient on one input."""
    counts = products(net, net.input_shape)
    return 3 * sum(counts) - counts[0]


def hvp(net):
    """Operations of one Hessian-vector product on one input, without primal pass."""
    counts = products(net, net.input_shape)
    return 6 * sum(counts) - 4 * counts[0]


def maml(net, tasks, support, query, inner_steps):
    """Operations of a second-order meta-gradient.

    K gradients and K Hessian-vector products on the support sets, one gradient on the
    query sets. support, query: examples of a task in each set.
    """
    return tasks * (inner_steps * support * (gradient(net) + hvp(net)) + query * gradient(net))
