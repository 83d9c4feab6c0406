"""What the user's function is told: what is to be differentiated, and a loss written out in its own framework."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Problem:
    """The first argument of a function fn(problem, params, batch) under examination.

    name        which probe this is, for messages
    method      what is to be differentiated: a method of refmaml, with the step size, steps and regularization that hold here
    net         the probe's net, a refmaml.Sequential
    framework   "numpy", "torch", "jax" or "cupy": what params and batch are arrays of
    loss        loss(params, x, y): the mean loss of one task, params by name, x (N, ...), y (N,) or (N, D); in torch and JAX it can be
                differentiated as often as one likes (written in primitives), in NumPy and CuPy it is a number
    gradient    NumPy and CuPy only: gradient(params, x, y), the loss's gradient by name
    hvp         NumPy and CuPy only: hvp(params, x, y, v), the loss's Hessian times v, both by name
    """

    name: str
    method: Any
    net: Any
    framework: str
    loss: Any
    gradient: Any = None
    hvp: Any = None


class Engine:
    """loss, gradient and hvp of one task by refmaml's own passes, on named NumPy arrays.

    array, back   to and from the arrays of another library that has no derivatives of its own
    """

    def __init__(self, net, array=np.array, back=np.asarray):
        self.net, self.array, self.back = net, array, back

    def flat(self, named):
        """The flat vector (1, P) of a dict; names beyond the net's own are not looked at."""
        return np.concatenate([self.back(named[name]).ravel() for name in self.net.shapes])[None]

    def named(self, flat):
        """{name: array} of a flat vector (1, P)."""
        return {name: self.array(a) for name, a in self.net.named(flat[0]).items()}

    def primal(self, params, x, y):
        """The pass at params on one task."""
        return self.net.primal(self.flat(params), self.back(x)[None], self.back(y)[None])

    def loss(self, params, x, y):
        """A number."""
        return self.net.kernels.to_host(self.primal(params, x, y).loss)[0]

    def gradient(self, params, x, y):
        """{name: array}."""
        return self.named(self.net.kernels.to_host(self.primal(params, x, y).grad))

    def hvp(self, params, x, y, v):
        """{name: array}: the Hessian of one task's loss at params, times v by name."""
        return self.named(self.net.hvp(self.primal(params, x, y), self.flat(v)))
