"""Errors planted in the formulas of activations: the checks find each.

test_21_planted_errors.py plants errors in whole passes.
"""

from dataclasses import fields

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.kernels.activation import smooth_functions as smooth
from refmaml.kernels.activation.functions import sigmoid
from refmaml.oracles import cases
from refmaml.oracles.layer_checks import layer_checks

K = kernels.reference()


def gate(**wrong):
    """GELU("tanh") with a wrong v, v' or v''."""
    a, c = smooth.TANH_SLOPE, smooth.TANH_CUBE
    right = {
        "v": lambda x: a * (x + c * x**3),
        "dv": lambda x: a * (1 + 3 * c * x**2),
        "ddv": lambda x: 6 * a * c * x,
    }
    return smooth.gated("gelu_tanh", **{**right, **wrong})


def branch(inside, outside):
    """A function that is `inside` where x <= 0."""
    return lambda x: np.where(x.real <= 0, inside(np.where(x.real <= 0, x, 0)), outside(x))


S, LOGISTIC, SILU, PHI = sigmoid, smooth.logistic, smooth.silu, smooth.normal_density
GELU, GELU_TANH, ELU = smooth.gelu, smooth.gelu_tanh, smooth.elu(0.3)
WRONG_FUNCTIONS = {
    rm.Sigmoid(): {
        "s for its slope": LOGISTIC._replace(df=S),
        "tanh's slope": LOGISTIC._replace(df=lambda x: 1 - S(x) ** 2),
        "f'' dropped": LOGISTIC._replace(ddf=None),
        "f'' with the wrong sign": LOGISTIC._replace(ddf=lambda x: -LOGISTIC.ddf(x)),
        "half of 1 - 2 s": LOGISTIC._replace(ddf=lambda x: S(x) * S(-x) * (1 - S(x))),
    },
    rm.SiLU(): {
        "the gate as a constant": SILU._replace(df=S),
        "x as a constant": SILU._replace(df=lambda x: x * S(x) * S(-x)),
        "f'' dropped": SILU._replace(ddf=None),
        "the 2 forgotten": SILU._replace(ddf=lambda x: SILU.ddf(x) - S(x) * S(-x)),
        "the gate's curvature dropped": SILU._replace(ddf=lambda x: 2 * S(x) * S(-x)),
    },
    rm.GELU(): {
        "Phi without sqrt 2": GELU._replace(f=lambda x: x * smooth.normal_cdf(x * np.sqrt(2))),
        "Phi as a constant": GELU._replace(df=smooth.normal_cdf),
        "phi without 1 / sqrt(2 pi)": GELU._replace(
            df=lambda x: GELU.df(x) + x * PHI(x) * (np.sqrt(2 * np.pi) - 1)
        ),
        "f'' dropped": GELU._replace(ddf=None),
        "1 for 2": GELU._replace(ddf=lambda x: (1 - x**2) * PHI(x)),
        "the approximation's slope": GELU._replace(df=GELU_TANH.df),
    },
    rm.GELU("tanh"): {
        "0.0447": gate(v=lambda x: smooth.TANH_SLOPE * (x + 0.0447 * x**3)),
        "the cube's slope without 3": gate(
            dv=lambda x: smooth.TANH_SLOPE * (1 + smooth.TANH_CUBE * x**2)
        ),
        "v'' dropped": gate(ddv=np.zeros_like),
        "v' not squared": GELU_TANH._replace(ddf=SILU.ddf),
        "the exact one's f''": GELU_TANH._replace(ddf=GELU.ddf),
    },
    rm.ELU(0.3): {
        "alpha e^x, without - 1": ELU._replace(f=branch(lambda x: 0.3 * np.exp(x), lambda x: x)),
        "alpha forgotten in f'": ELU._replace(df=branch(np.exp, np.ones_like)),
        "f'' dropped": ELU._replace(ddf=None),
        "f'' with the wrong sign": ELU._replace(ddf=lambda x: -ELU.ddf(x)),
        "y + 1 for y + alpha": ELU._replace(
            df=branch(lambda x: 0.3 * np.expm1(x) + 1, np.ones_like)
        ),
    },
}
PLANTED = [(layer, name) for layer, errors in WRONG_FUNCTIONS.items() for name in errors]


@pytest.mark.parametrize("layer,error", PLANTED, ids=str)
def test_an_error_planted_in_a_function_is_caught(layer, error):
    # The loops of the forward pass are found by the name of the class.
    wrong = {"function": WRONG_FUNCTIONS[layer][error]}
    kind = type(type(layer).__name__, (type(layer),), wrong)
    planted = kind(**{f.name: getattr(layer, f.name) for f in fields(layer)})
    assert any(not c.passed for c in layer_checks(cases.LayerCase(planted, (3, 4, 2)), K))


# ---- softmax -------------------------------------------------------------------------


def total(a):
    return a.sum(axis=2, keepdims=True)


class OverTheLast(rm.Softmax):
    def forward(self, k, w, x):
        return rm.Softmax(-1).forward(k, w, x)


class DiagonalOnly(rm.Softmax):
    def projected(self, p, a):
        return p * a


class ProbabilitiesAsConstants(rm.Softmax):
    def r_backward(self, k, rdw, w, rw, p, rp, dy, rdy, need_dx=True):
        return self.projected(p, rdy)


class MeanAsConstant(rm.Softmax):
    def r_backward(self, k, rdw, w, rw, p, rp, dy, rdy, need_dx=True):
        return rp * (dy - total(p * dy)) + self.projected(p, rdy)


class SumOverExamples(rm.Softmax):
    def total(self, a):
        return a.sum(axis=1, keepdims=True)


class LogOverTheLast(rm.LogSoftmax):
    def forward(self, k, w, x):
        return rm.LogSoftmax(-1).forward(k, w, x)


class SumAsConstant(rm.LogSoftmax):
    def backward(self, k, dw, w, p, dy, need_dx=True):
        return dy


class TransposedProduct(rm.LogSoftmax):
    def backward(self, k, dw, w, p, dy, need_dx=True):
        return dy - total(p * dy)


class TransposedTangent(rm.LogSoftmax):
    def r_forward(self, k, w, rw, p, rx):
        return rx - p * total(rx), p * (rx - total(p * rx))


class WithoutRp(rm.LogSoftmax):
    def r_backward(self, k, rdw, w, rw, p, rp, dy, rdy, need_dx=True):
        return rdy - p * total(rdy)


@pytest.mark.parametrize(
    "planted",
    [OverTheLast, DiagonalOnly, ProbabilitiesAsConstants, MeanAsConstant, SumOverExamples,
     LogOverTheLast, SumAsConstant, TransposedProduct, TransposedTangent, WithoutRp],
)  # fmt: skip
def test_an_error_planted_in_a_softmax_is_caught(planted):
    kind = type(planted.__bases__[0].__name__, (planted,), {})
    assert any(not c.passed for c in layer_checks(cases.LayerCase(kind(), (3, 4, 2)), K))
