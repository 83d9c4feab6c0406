"""FiLM: every channel scaled and shifted by numbers computed from the task's context; CAVIA's layer for convolutional nets.

[gamma, beta] = A c + a        y = gamma x + beta            c: context, A: weight, a: bias

backward      (dgamma, dbeta) from y = gamma x + beta;    dc = A' [dgamma, dbeta]    dA = [dgamma, dbeta] c'    da = [dgamma, dbeta]
R-passes      the product rule on each line; [gamma, beta] is bilinear in (A, c), so its passes are those of a matrix product
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refmaml.errors import expect
from refmaml.layers.extents import rows


class Modulated(NamedTuple):
    """What a pass leaves: the input x (T, N, C, ...) and gamma (1 or T, C), or their tangents."""

    x: np.ndarray
    gamma: np.ndarray


@dataclass(frozen=True)
class FiLM:
    """y[t,n,c] = gamma[t,c] x[t,n,c] + beta[t,c] with [gamma, beta] = weight @ context + bias.

    Parameters: context (size,), 0 at the start; weight (2 C, size); bias (2 C,), which starts as gamma = 1, beta = 0.
    Source: Perez et al. 2018, eq. 1-2; as CAVIA's conditioning: Zintgraf et al. 2019, section 3.3.
    """

    num_features: int
    size: int

    def shapes(self):
        return {
            "context": (self.size,),
            "weight": (2 * self.num_features, self.size),
            "bias": (2 * self.num_features,),
        }

    def output_shape(self, shape):
        expect(
            shape[0] == self.num_features,
            "input of FiLM",
            f"{self.num_features} channels",
            f"shape {tuple(shape)}",
        )
        return tuple(shape)

    def init(self, rng):
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
        """weight @ context (1 or T, 2 C); a context that tasks share gets a row for each."""
        T = max(len(weight), len(context))
        both = k.empty((T, 1, 2 * self.num_features), np.result_type(weight.dtype, context.dtype))
        k.linear_forward(both, k.xp.broadcast_to(context[:, None], (T, 1, self.size)), weight)
        return both[:, 0]

    def modulation_dw(self, k, dweight, context, dboth):
        """dweight = dboth context', one per task."""
        k.linear_backward_w(
            dweight, k.xp.broadcast_to(context[:, None], (len(dboth), 1, self.size)), dboth[:, None]
        )

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
        """Fills dboth = [dgamma, dbeta] (T, 2 C) and returns dx."""
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
        rboth = self.modulation(k, rw["weight"], w["context"]) + self.modulation(
            k, w["weight"], rw["context"]
        )
        rgamma, rbeta = self.halves(rboth + rw["bias"])
        ry = k.empty(rx.shape, np.result_type(rx.dtype, rgamma.dtype))
        k.film_r_forward(rows(ry), rows(saved.x), rows(rx), saved.gamma, rgamma, rbeta)
        return ry, Modulated(rx, rgamma)

    def r_backward(self, k, rdw, w, rw, saved, rsaved, dy, rdy, need_dx=True):
        rdx = k.empty(rdy.shape, rdy.dtype)
        rdboth, dboth = rdw["bias"], k.empty(rdw["bias"].shape, rdw["bias"].dtype)
        k.film_r_backward(
            rows(rdx),
            *self.halves(rdboth),
            rows(dy),
            rows(rdy),
            rows(saved.x),
            rows(rsaved.x),
            saved.gamma,
            rsaved.gamma,
        )
        self.both_gradients(k, dboth, saved, dy)
        term = k.empty(rdw["weight"].shape, rdw["weight"].dtype)
        self.modulation_dw(k, rdw["weight"], w["context"], rdboth)
        self.modulation_dw(k, term, rw["context"], dboth)
        rdw["weight"] += term
        rdw["context"][...] = self.modulation_dx(k, rdboth, w["weight"]) + self.modulation_dx(
            k, dboth, rw["weight"]
        )
        return rdx
