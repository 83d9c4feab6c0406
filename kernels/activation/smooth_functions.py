"""Smooth elementwise functions beyond those of functions.py, each as f, f' and f''.

s = sigmoid(x), and s(-x) = 1 - s without its cancellation.

sigmoid    f = s                   f' = s s(-x)        f'' = s s(-x) (s(-x) - s)
gated      f = x s(v), v = v(x)    with q = s(v) s(-v):
                                   f' = s(v) + x q v'
                                   f'' = q (2 v' + x (v'' + (s(-v) - s(v)) v'^2))
           SiLU: v = x. GELU with "tanh": v = sqrt(8 / pi) (x + 0.044715 x^3), as
           (1 + tanh u) / 2 = s(2 u).
GELU       f = x Phi(x)            f' = Phi + x phi    f'' = (2 - x^2) phi
           Phi and phi are the distribution function and the density of N(0, 1).
           Phi = erfc(-x / sqrt 2) / 2 has no cancellation for x < 0.
ELU        f = alpha (e^x - 1), f' = f'' = alpha e^x where x <= 0; x, 1 and 0 elsewhere

Sources: SiLU and GELU: Hendrycks & Gimpel 2016, eq. 2 and section 4; ELU: Clevert et
al. 2016, eq. 15.
"""

from math import pi, sqrt

import numpy as np

from refmaml.kernels.activation.functions import Elementwise, sigmoid

# v of GELU with "tanh": TANH_SLOPE (x + TANH_CUBE x^3).
TANH_SLOPE, TANH_CUBE = sqrt(8 / pi), 0.044715
SQRT_HALF, DENSITY_AT_0 = sqrt(0.5), 1 / sqrt(2 * pi)


logistic = Elementwise(
    f=sigmoid,
    df=lambda x: sigmoid(x) * sigmoid(-x),
    ddf=lambda x: sigmoid(x) * sigmoid(-x) * (sigmoid(-x) - sigmoid(x)),
    name="sigmoid",
)


def gated(name, v, dv, ddv):
    """x sigmoid(v(x)) as an Elementwise, from v and its two derivatives."""

    def df(x):
        s, opposite = sigmoid(v(x)), sigmoid(-v(x))
        return s + x * (s * opposite * dv(x))

    def ddf(x):
        s, opposite = sigmoid(v(x)), sigmoid(-v(x))
        return s * opposite * (2 * dv(x) + x * (ddv(x) + (opposite - s) * dv(x) ** 2))

    return Elementwise(lambda x: x * sigmoid(v(x)), df, ddf, name)


silu = gated("silu", lambda x: x, np.ones_like, np.zeros_like)

gelu_tanh = gated(
    "gelu_tanh",
    lambda x: TANH_SLOPE * (x + TANH_CUBE * x**3),
    lambda x: TANH_SLOPE * (1 + 3 * TANH_CUBE * x**2),
    lambda x: 6 * TANH_SLOPE * TANH_CUBE * x,
)


def normal_cdf(x):
    """Phi(x), the distribution function of N(0, 1); SciPy's erfc takes complex x."""
    from scipy.special import erfc  # scipy is imported where it is used

    return 0.5 * erfc(-SQRT_HALF * x)


def normal_density(x):
    """phi(x) = e^(-x^2 / 2) / sqrt(2 pi)."""
    return DENSITY_AT_0 * np.exp(-0.5 * x**2)


gelu = Elementwise(
    f=lambda x: x * normal_cdf(x),
    df=lambda x: normal_cdf(x) + x * normal_density(x),
    ddf=lambda x: (2 - x**2) * normal_density(x),
    name="gelu",
)


def elu(alpha):
    """x where x > 0, alpha (e^x - 1) elsewhere; alpha is the Elementwise's `slope`."""

    def nonpositive(x):
        return np.where(x.real <= 0, x, 0)  # no overflow where the result is not used

    return Elementwise(
        f=lambda x: np.where(x.real <= 0, alpha * np.expm1(nonpositive(x)), x),
        df=lambda x: np.where(x.real <= 0, alpha * np.exp(nonpositive(x)), 1),
        ddf=lambda x: np.where(x.real <= 0, alpha * np.exp(nonpositive(x)), 0),
        name="elu",
        slope=alpha,
    )
