"""Homework 1: the adjoints of a linear layer.

The forward pass is y = x weight' + bias, with x (N, I), weight (O, I), bias (O,) and y
(N, O). You get dy = d loss / d y, (N, O). Fill each hole `...` with one line. The
shapes leave you hardly a choice, so say also why.

    python docs/homework/compare.py docs/homework/linear.py
    refmaml check layer docs/homework/linear.py:backward --like "Linear(3, 2)"
"""

import numpy as np


def example():
    """Inputs for compare.py."""
    rng = np.random.default_rng(0)
    shapes = {"x": (4, 3), "weight": (2, 3), "bias": (2,), "dy": (4, 2)}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def adjoints(x, weight, bias, dy):
    """d loss / d of every array, from dy."""
    dbias = ...
    dweight = ...
    dx = ...
    return {"dbias": dbias, "dweight": dweight, "dx": dx}


def backward(x, params, dy):
    """What `refmaml check layer` calls."""
    d = adjoints(x, params["weight"], params["bias"], dy)
    return {"x": d["dx"], "weight": d["dweight"], "bias": d["dbias"]}
