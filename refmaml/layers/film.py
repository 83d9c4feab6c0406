"""FiLM: each channel is scaled and shifted by numbers computed from the task's context.

It is CAVIA's layer for convolutional nets. With c the context, A the weight, a the
bias:

    forward     [gamma, beta] = A c + a
                y = gamma x + beta

    backward    (dgamma, dbeta) from y = gamma x + beta
                dc = A' [dgamma, dbeta]
                dA = [dgamma, dbeta] c'
                da = [dgamma, dbeta]

    R-passes    the product rule on each line; [gamma, beta] is bilinear in (A, c), so
                its passes are those of a matrix product
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.arguments import check_integer, set_fields
from refmaml.errors import expect
from refmaml.layers.extents import rows
from refmaml.layers.layer import Layer


class Modulated(NamedTuple):
    """What a pass saves: x (T, N, C, ...) and gamma (1 or T, C), or their tangents."""

    x: np.ndarray
    gamma: np.ndarray


@dataclass(frozen=True)
class FiLM(Layer):
    """y[t,n,c] = gamma[t,c] x[t,n,c] + beta[t,c].

    [gamma, beta] = weight @ context + bias.

    Parameters, with C = num_features: context (size,), 0 at the start; weight
    (2 C, size); bias (2 C,), which starts as gamma = 1, beta = 0.
    Raises ArgumentError unless both sizes are integers >= 1.
    Source: Perez et al. 2018, eq. 1-2; for CAVIA: Zintgraf et al. 2019, section 3.3.
    """

    num_features: int
    size: int

    def __post_init__(self) -> None:
        set_fields(
            self,
            num_features=check_integer("num_features", self.num_features),
            size=check_integer("size", self.size),
        )

    def shapes(self) -> dict[str, tuple]:
        return {
            "context": (self.size,),
            "weight": (2 * self.num_features, self.size),
            "bias": (2 * self.num_features,),
        }

    def output_shape(self, shape: tuple) -> tuple:
        expect(
            len(shape) > 0 and shape[0] == self.num_features,
            "input of FiLM",
            f"{self.num_features} channels",
            f"shape {tuple(shape)}",
        )
        return tuple(shape)

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        a = 1 / np.sqrt(self.size)
        C = self.num_features
        return {
            "context": np.zeros(self.size),
            "weight": rng.uniform(-a, a, (2 * C, self.size)),
            "bias": np.concatenate([np.ones(C), np.zeros(C)]),
        }

    def halves(self, both):
        """(gamma, beta), or their adjoints or tangents: views of both (T, 2 C)."""
        return both[:, : self.num_features], both[:, self.num_features :]

    def modulation(self, k, weight, context):
        """weight @ context (1 or T, 2 C); a context that tasks share gets a row for
        each.
        """
        T = max(len(weight), len(context))
        both = k.empty((T, 1, 2 * self.num_features), np.result_type(weight.dtype, context.dtype))
        k.linear_forward(both, k.xp.broadcast_to(context[:, None], (T, 1, self.size)), weight)
        return both[:, 0]

    def modulation_dw(self, k, dweight, context, dboth):
        """Fills dweight = dboth context', one for each task."""
        context = k.xp.broadcast_to(context[:, None], (len(dboth), 1, self.size))
        k.linear_backward_w(dweight, context, dboth[:, None])

    def modulation_dx(self, k, dboth, weight):
        """dcontext = weight' dboth (T, size)."""
        dcontext = k.empty((len(dboth), 1, self.size), np.result_type(dboth.dtype, weight.dtype))
        k.linear_backward_x(dcontext, dboth[:, None], weight)
        return dcontext[:, 0]

    def forward(self, k, w, x):
        gamma, beta = self.halves(self.modulation(k, w["weight"], w["context"]) + w["bias"])
        y = k.empty(x.shape, np.result_type(x.dtype, gamma.dtype))
        k.film_forward(rows(y), rows(x), gamma, beta)
        return y, Modulated(x, gamma)

    def both_gradients(self, k, dboth, saved, dy):
        """dx; fills dboth = [dgamma, dbeta] (T, 2 C)."""
        dx = k.empty(saved.x.shape, np.result_type(dy.dtype, saved.gamma.dtype))
        k.film_backward(rows(dx), *self.halves(dboth), rows(dy), rows(saved.x), saved.gamma)
        return dx

    def backward(self, k, dw, w, saved, dy, need_dx=True):
        dx = self.both_gradients(k, dw["bias"], saved, dy)
        self.modulation_dw(k, dw["weight"], w["context"], dw["bias"])
        dw["context"][...] = self.modulation_dx(k, dw["bias"], w["weight"])
        return dx

    def r_forward(self, k, w, rw, saved, rx):
        rx = k.xp.zeros(saved.x.shape, saved.gamma.dtype) if rx is None else rx
        rweight_part = self.modulation(k, rw["weight"], w["context"])
        rcontext_part = self.modulation(k, w["weight"], rw["context"])
        rgamma, rbeta = self.halves(rweight_part + rcontext_part + rw["bias"])
        ry = k.empty(rx.shape, np.result_type(rx.dtype, rgamma.dtype))
        k.film_r_forward(rows(ry), rows(saved.x), rows(rx), saved.gamma, rgamma, rbeta)
        return ry, Modulated(rx, rgamma)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        rdx = k.empty(rdy.shape, rdy.dtype)
        rdboth, dboth = rdw["bias"], k.empty(rdw["bias"].shape, rdw["bias"].dtype)
        k.film_r_backward(
            rows(rdx), *self.halves(rdboth), rows(dy), rows(rdy),
            rows(saved.x), rows(rsaved.x), saved.gamma, rsaved.gamma,
        )  # fmt: skip
        self.both_gradients(k, dboth, saved, dy)
        term = k.empty(rdw["weight"].shape, rdw["weight"].dtype)
        self.modulation_dw(k, rdw["weight"], w["context"], rdboth)
        self.modulation_dw(k, term, rw["context"], dboth)
        rdw["weight"] += term
        rdcontext = self.modulation_dx(k, rdboth, w["weight"])
        rdw["context"][...] = rdcontext + self.modulation_dx(k, dboth, rw["weight"])
        return rdx
