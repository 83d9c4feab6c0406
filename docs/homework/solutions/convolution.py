"""Homework 4, solved: the tangent passes of a convolution."""

import numpy as np


def example():
    """Inputs for compare.py."""
    rng = np.random.default_rng(0)
    shapes = {"x": (2, 2, 5, 5), "weight": (3, 2, 3, 3), "dy": (2, 3, 3, 3)}
    found = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    tangents = {f"r{name}": rng.standard_normal(a.shape) for name, a in found.items()}
    return found | tangents


# ---- the product and its two transposes: given ---------------------------------------


def patches(x, kernel):
    """(N, C, H', W', kH, kW): the window of every position."""
    return np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))


def product(x, weight):
    """y, stride 1, no padding."""
    return np.einsum("ncijpq,ocpq->noij", patches(x, weight.shape[2:]), weight)


def product_dw(x, dy):
    """The transpose in the weight."""
    kernel = tuple(a - b + 1 for a, b in zip(x.shape[2:], dy.shape[2:], strict=True))
    return np.einsum("ncijpq,noij->ocpq", patches(x, kernel), dy)


def product_dx(dy, weight):
    """The transpose in the input: a product with the turned kernel, after padding."""
    kH, kW = weight.shape[2:]
    padded = np.pad(dy, ((0, 0), (0, 0), (kH - 1, kH - 1), (kW - 1, kW - 1)))
    return product(padded, weight[:, :, ::-1, ::-1].swapaxes(0, 1))


# ---- the passes ----------------------------------------------------------------------


def adjoints(x, weight, dy, rx, rweight, rdy):
    """The backward pass is given; the tangents are the homework."""
    dx = product_dx(dy, weight)
    dweight = product_dw(x, dy)
    ry = product(rx, weight) + product(x, rweight)
    rdx = product_dx(rdy, weight) + product_dx(dy, rweight)
    rdweight = product_dw(rx, dy) + product_dw(x, rdy)
    return {"dx": dx, "dweight": dweight, "ry": ry, "rdx": rdx, "rdweight": rdweight}


def backward(x, params, dy):
    """What `refmaml check layer` calls."""
    weight = params["weight"]
    return {
        "x": product_dx(dy, weight),
        "weight": product_dw(x, dy),
        "bias": dy.sum(axis=(0, 2, 3)),
    }


def r_forward(x, params, rx, rparams):
    """R{y}, y = x * weight + bias."""
    zero = np.zeros(product(x, params["weight"]).shape)
    r = adjoints(x, params["weight"], zero, rx, rparams["weight"], zero)
    return r["ry"] + rparams["bias"].reshape(1, -1, 1, 1)


def r_backward(x, params, dy, rx, rparams, rdy):
    """R{dx}, R{dweight}, R{dbias}."""
    r = adjoints(x, params["weight"], dy, rx, rparams["weight"], rdy)
    return {"x": r["rdx"], "weight": r["rdweight"], "bias": rdy.sum(axis=(0, 2, 3))}
