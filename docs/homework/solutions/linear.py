"""Homework 1, solved: the adjoints of a linear layer."""

import numpy as np


def example():
    """Inputs for compare.py."""
    rng = np.random.default_rng(0)
    shapes = {"x": (4, 3), "weight": (2, 3), "bias": (2,), "dy": (4, 2)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def adjoints(x, weight, bias, dy):
    """d loss / d of every array, from dy."""
    dbias = dy.sum(axis=0)
    dweight = dy.T @ x
    dx = dy @ weight
    return {"dbias": dbias, "dweight": dweight, "dx": dx}


def backward(x, params, dy):
    """What `refmaml check layer` calls."""
    d = adjoints(x, params["weight"], params["bias"], dy)
    return {"x": d["dx"], "weight": d["dweight"], "bias": d["dbias"]}
