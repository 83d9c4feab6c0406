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
from refmaml.layers.walk import walk
from refmaml.methods import IMAML, Reptile


def products(net, shape):
    """Operations of a forward pass of one input of `shape`, for each product layer."""
    return [2 * taps * prod(visit.after) for visit, taps in product_layers(net.layers, shape)]


def product_layers(layers, shape):
    """[(visit, factors of one sum)] of the product layers, inside other layers too."""
    return [
        (visit, prod(visit.layer.shapes()["weight"][1:]))
        for visit in walk(layers, shape)
        if isinstance(visit.layer, Conv2d | Linear)
    ]


def first_products(layers, shape):
    """Operations of a forward pass in the product layers that have none before them.

    A layer with a branch and a shortcut may have one in each.
    """
    for layer in layers:
        if isinstance(layer, Conv2d | Linear):
            ((visit, taps),) = product_layers([layer], shape)
            return 2 * taps * prod(visit.after)
        parts = getattr(layer, "parts", {}).values()
        if inside := sum(first_products(part, shape) for part in parts):
            return inside
        shape = layer.output_shape(shape)
    return 0


def gradient(net):
    """Operations of one gradient on one input."""
    first = first_products(net.layers, net.input_shape)
    return 3 * sum(products(net, net.input_shape)) - first


def hvp(net):
    """Operations of one Hessian-vector product on one input, without primal pass."""
    first = first_products(net.layers, net.input_shape)
    return 6 * sum(products(net, net.input_shape)) - 4 * first


def of(method, net, support, query):
    """Operations of a meta-gradient of one task, of MAML, iMAML or Reptile.

    support, query: examples of a task in each set.

    MAML     K gradients and K Hessian-vector products on the support set, one gradient
             on the query set
    iMAML    K + 1 gradients, the last at phi*, and a product for each iteration of CG,
             on the support set; one gradient on the query set
    Reptile  K gradients on the support set; its loss on the query set is not counted
    """
    K, g = method.inner_steps, gradient(net)
    if isinstance(method, IMAML):
        return support * ((K + 1) * g + method.cg_steps * hvp(net)) + query * g
    if isinstance(method, Reptile):
        return K * support * g
    return K * support * (g + hvp(net)) + query * g
