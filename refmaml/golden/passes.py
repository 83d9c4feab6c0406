"""The outputs, adjoints and tangents of every layer, for authors of layers."""

import numpy as np

from refmaml.quadratic import Quadratic


def passes(net, theta, v, x, y):
    """{name: array} at theta (P,) for x (T, N, ...), y.

    The loss (T,), gradient, H v and G v (T, P); for layer i its output y.i, the adjoint
    dy.i, the tangent ry.i along v and the tangent of the adjoint rdy.i, each
    (T, N, ...).
    """
    primal = net.primal(theta[None], x, y)
    out = {
        "support_loss": primal.loss,
        "support_grad": primal.grad,
        "support_hvp": net.hvp(primal, v[None]),
    }
    if isinstance(net, Quadratic):
        return out
    rys, rsaved = tangents(net, primal, v)
    rdz = net.loss_function.r_backward(net.kernels, primal.loss_saved, rys[-1])
    by_layer = {
        "y": outputs(net, theta, x),
        "dy": primal.dys,
        "ry": rys,
        "rdy": adjoint_tangents(net, primal, v, rsaved, rdz),
    }
    out["support_gnvp"] = net.gauss_newton_product(primal, v[None])
    return out | {
        f"{name}.{i}": a for name, arrays in by_layer.items() for i, a in enumerate(arrays)
    }


def outputs(net, theta, x):
    """The output of each layer."""
    ys = []
    for layer, w in zip(net.layers, net.parameters.views(theta[None]), strict=True):
        x, _ = layer.forward(net.kernels, w, x)
        ys.append(x)
    return ys


def tangents(net, primal, v):
    """R{y} of each layer along v, and what each saved of it.

    The first layer's input does not move.
    """
    rys, rsaved, rx = [], [], None
    for layer, w, rw, saved in zip(
        net.layers, primal.w, net.parameters.views(v[None]), primal.saved, strict=True
    ):
        rx, kept = layer.r_forward(net.kernels, w, rw, saved, rx)
        rys, rsaved = [*rys, rx], [*rsaved, kept]
    return rys, rsaved


def adjoint_tangents(net, primal, v, rsaved, rdz):
    """R{dy} of each layer's output: rdz for the last, else the next layer's rdx."""
    rw, rdys = net.parameters.views(v[None]), [rdz]
    rdw = net.parameters.views(np.empty_like(primal.grad))
    for i in range(len(net.layers) - 1, 0, -1):
        rdys.append(
            net.layers[i].r_backward(
                net.kernels,
                rdw[i],
                primal.w[i],
                rw[i],
                primal.saved[i],
                rsaved[i],
                primal.dys[i],
                rdys[-1],
            )
        )
    return rdys[::-1]
