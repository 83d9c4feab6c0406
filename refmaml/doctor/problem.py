"""The first argument of the user's function: the method, the net, and a loss in the
user's own framework."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from refmaml.methods.features import Features, body_of
from refmaml.methods.solved_head import without_head


@dataclass(frozen=True)
class Problem:
    """The first argument of a function fn(problem, params, batch).

    name        the case's name, for messages
    method      the method to implement, with the step size, number of steps and
                regularization of this case
    net         the case's net, a refmaml.Sequential
    framework   "numpy", "torch", "jax" or "cupy": the arrays of params and batch
    loss        loss(params, x, y): the mean loss of one task, params by name, x (N,
                ...), y (N,) or (N, D). In torch and JAX it is written in primitives and
                can be differentiated any number of times; in NumPy and CuPy it is a
                number
    gradient    NumPy and CuPy only: gradient(params, x, y), the loss's gradient by name
    hvp         NumPy and CuPy only: hvp(params, x, y, v), the loss's Hessian times v,
                both by name
    features    features(params, x) (N, F): the outputs of all layers but the last, in
                torch and JAX written in primitives
    features_pullback  NumPy and CuPy only: features_pullback(params, x, dX), by name:
                (dX/dparams)' dX
    """

    name: str
    method: Any
    net: Any
    framework: str
    loss: Any
    gradient: Any = None
    hvp: Any = None
    features: Any = None
    features_pullback: Any = None


class Engine:
    """loss, gradient, hvp and features of one task by refmaml's own passes, by name.

    array      NumPy array -> an array of a library without derivatives of its own
    to_numpy   the way back
    """

    def __init__(self, net, array=np.array, to_numpy=np.asarray):
        self.net, self.array, self.to_numpy = net, array, to_numpy

    def flat(self, named):
        """The flat vector (1, P) of a dict; names that the net lacks are ignored."""
        arrays = [self.to_numpy(named[name]).ravel() for name in self.net.shapes]
        return np.concatenate(arrays)[None]

    def named(self, flat):
        """{name: array} of a flat vector (1, P)."""
        return {name: self.array(a) for name, a in self.net.named(flat[0]).items()}

    def primal(self, params, x, y):
        """The pass at params on one task."""
        return self.net.primal(self.flat(params), self.to_numpy(x)[None], self.to_numpy(y)[None])

    def loss(self, params, x, y):
        """The loss, a number."""
        return self.net.kernels.to_host(self.primal(params, x, y).loss)[0]

    def gradient(self, params, x, y):
        """{name: array}."""
        return self.named(self.net.kernels.to_host(self.primal(params, x, y).grad))

    def hvp(self, params, x, y, v):
        """{name: array}: the Hessian of one task's loss at params, times v by name."""
        return self.named(self.net.hvp(self.primal(params, x, y), self.flat(v)))

    def features_of(self, params, x):
        """The body's pass on one task."""
        body = body_of(self.net)
        return Features.of(body, self.flat(params)[:, : body.num_params], self.to_numpy(x)[None])

    def features(self, params, x):
        """(N, F)."""
        return self.array(self.net.kernels.to_host(self.features_of(params, x).X)[0])

    def features_pullback(self, params, x, dX):
        """{name: array}, 0 for the head."""
        here = self.features_of(params, x)
        dX = self.net.kernels.arrays(np.ascontiguousarray(self.to_numpy(dX))[None])[0]
        grad, _ = here.pullback(dX)
        return self.named(self.net.kernels.to_host(without_head(self.net, grad)))
