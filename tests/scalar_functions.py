"""Functions of one number with their first two derivatives, for tests.

Each takes w (T,) and x (T, 1), which holds a shift s of the function: f(w - s). They
are the functions of the page docs/pages/anchor.html.
"""

import numpy as np

import refmaml as rm


def wavy(w, x):
    """sin(3w) + cos(7w)/2 + w^2/10."""
    w = w - x[:, 0]
    return np.sin(3 * w) + 0.5 * np.cos(7 * w) + 0.1 * w * w


def d_wavy(w, x):
    w = w - x[:, 0]
    return 3 * np.cos(3 * w) - 3.5 * np.sin(7 * w) + 0.2 * w


def dd_wavy(w, x):
    w = w - x[:, 0]
    return -9 * np.sin(3 * w) - 24.5 * np.cos(7 * w) + 0.2


WAVY_CURVATURE = 9 + 24.5 + 0.2  # the largest |f''|

# Two wells (centre, width) of depth 1.2 in w^2/20: a sharp and a wide one.
WELLS, DEPTH = ((1.2, 0.25), (-1.2, 0.8)), 1.2


def well_terms(w):
    """(z, width, well) of each well: z is the distance in widths, well = -depth
    e^(-z^2/2).
    """
    for centre, width in WELLS:
        z = (w - centre) / width
        yield z, width, -DEPTH * np.exp(-z * z / 2)


def wells(w, x):
    """w^2/20 - sum 1.2 e^(-((w - centre)/width)^2 / 2)."""
    w = w - x[:, 0]
    return 0.05 * w * w + sum(well for _, _, well in well_terms(w))


def d_wells(w, x):
    w = w - x[:, 0]
    return 0.1 * w - sum(z / width * well for z, width, well in well_terms(w))


def dd_wells(w, x):
    w = w - x[:, 0]
    return 0.1 + sum((z * z - 1) / width**2 * well for z, width, well in well_terms(w))


WELLS_CURVATURE = 0.1 + DEPTH / 0.25**2 + DEPTH / 0.8**2  # |(z^2 - 1) e^(-z^2/2)| <= 1


def scalar_wavy():
    return rm.ScalarFunction(wavy, d_wavy, dd_wavy)


def scalar_wells():
    return rm.ScalarFunction(wells, d_wells, dd_wells)


def solver(regularization, curvature, steps=1000):
    """iMAML whose inner solver passes no minimum and ends where it stands still.

    The error shrinks by (1 - (f'' + lambda)/(max|f''| + lambda))^steps: to nothing
    where f'' + lambda > 1.5, which is a slope below lambda / 1.5.
    """
    return rm.IMAML(
        regularization, inner_steps=steps, inner_lr=1 / (curvature + regularization), cg_steps=3
    )
