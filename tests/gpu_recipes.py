"""What the tests of training on a GPU share: a small recipe on sinusoids."""

import numpy as np
from gpu_cases import METHODS

import refmaml as rm
from refmaml.models import mlp
from refmaml.training import Adam, Schedule
from refmaml.training.trainer import Recipe


def sinusoids(dtype=np.float64):
    return lambda step: rm.Sinusoids().sample(3, 4, 5, seed=0, step=step, dtype=dtype)


def recipe(k, method=METHODS[0], optimizer=None, dtype=np.float64, lr=1e-2):
    return Recipe(
        mlp((1, 3, 1), "tanh", kernels=k),
        method,
        optimizer or Adam(),
        Schedule(lr),
        sinusoids(dtype),
        chunk=2,
    )


def theta_of(recipe, dtype=np.float64):
    return recipe.net.init(0, dtype)
