"""The body of a net, which computes the features that its last layer reads."""

from typing import Any, NamedTuple, Self

from refmaml.errors import expect
from refmaml.layers.bilinear import Linear
from refmaml.layers.layer import Array
from refmaml.primal import Primal


def body_of(net: Any) -> Any:
    """The layers before the head as a net; the head is a Linear layer at its end.

    The body's parameters come first in the net's flat vector. Raises ArgumentError
    where there is no such head.
    """
    layers = list(getattr(net, "named_layers", {}).items())
    last = layers[-1][1] if layers else net
    wanted = "a Linear layer at its end, whose parameters the solution replaces"
    expect(type(last) is Linear, "net", wanted, lambda: type(last).__name__)
    return type(net)(dict(layers[:-1]), net.loss_function, net.input_shape, net.kernels)


class Features(NamedTuple):
    """X = body(theta; x) (T, N, F), with what its later passes need."""

    body: Any
    w: list
    saved: list
    X: Array

    @classmethod
    def of(cls, body: Any, theta: Array, x: Array) -> Self:
        """The features of x (T, N, ...) at the body's parameters theta (1, .)."""
        w = body.parameters.views(theta)
        X, saved = body.forward(w, x)
        return cls(body, w, saved, X)

    def pullback(self, dX: Array) -> tuple[Array, Primal]:
        """(d body / d theta)' dX of each task, (T, .), and the pass, for R-passes."""
        grad, dys = self.body.backward(self.w, self.saved, dX)
        return grad, Primal(self.w, self.X, dX, None, grad, self.saved, dys, None)
