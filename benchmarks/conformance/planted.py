"""A pytest plugin that plants a wrong Hessian in learn2learn's own path.

    PLANTED=c python -m pytest -p planted ...

Inner gradients keep their values; their derivatives are multiplied by c. c = 0:
detached; 2: H doubled; -1: H's sign flipped; 1: nothing planted.
"""

import os
import sys
from types import ModuleType

import torch

sys.modules.setdefault(
    "learn2learn.vision", ModuleType("learn2learn.vision")
)  # needs torchvision, see adapters/learn2learn_maml.py
FACTOR = float(os.environ.get("PLANTED", "1"))


def wrong_grad(*arguments, **options):
    """torch.autograd.grad with its derivative changed: c g + (1 - c) detach(g)."""
    return tuple(
        None if g is None else FACTOR * g + (1 - FACTOR) * g.detach()
        for g in torch.autograd.grad(*arguments, **options)
    )


def pytest_configure(config):
    from learn2learn.algorithms import gbml, maml, meta_sgd

    for module in (maml, meta_sgd, gbml):
        if hasattr(module, "grad"):
            module.grad = wrong_grad
