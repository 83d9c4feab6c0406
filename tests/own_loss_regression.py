"""A tanh regression in PyTorch as a loss of named parameters, and as a net."""

import numpy as np
import torch
import torch.nn.functional as F

import refmaml as rm

DOUBLE = torch.float64
SIZES = ((7, 3), (7, 2), (11, 3), (11, 2))  # of x and y of the two sets of a task


def refmaml_net():
    return rm.mlp((3, 8, 2), activation="tanh", loss=rm.MSE())


def regression(params, x, y, activation=torch.tanh):
    h = activation(F.linear(x, params["0.weight"], params["0.bias"]))
    return F.mse_loss(F.linear(h, params["2.weight"], params["2.bias"]), y)


def start(seed=0):
    """{name: tensor} in float64."""
    rng = np.random.default_rng(seed)
    shapes = {"0.weight": (8, 3), "0.bias": (8,), "2.weight": (2, 8), "2.bias": (2,)}
    return {n: torch.from_numpy(0.6 * rng.standard_normal(s)) for n, s in shapes.items()}


def tasks(seed=0, sizes=SIZES, count=3):
    """(x_support, y_support, x_query, y_query), tensors with the task axis first."""
    rng = np.random.default_rng(seed)
    return tuple(torch.from_numpy(rng.standard_normal((count, *s))) for s in sizes)


def ragged_tasks(seed=0):
    """[(xs, ys, xq, yq) of each task], the tasks of different sizes."""
    rng = np.random.default_rng(seed)
    sizes = [(4, 6), (9, 3), (5, 5)]
    return [
        tuple(
            torch.from_numpy(rng.standard_normal((n[i], d)))
            for i, d in ((0, 3), (0, 2), (1, 3), (1, 2))
        )
        for n in sizes
    ]
