"""The matrices of Winograd's minimal filtering F(4, 3), in exact arithmetic.

Four outputs y of a filter g of 3 taps on 6 inputs d,

    y[i] = sum_j g[j] d[i + j]        by definition 12 products,
    y    = A' [ (G g) * (B' d) ]      6 products, * element by element.

Why: this is the transpose of a product of polynomials. p(x) = g(x) u(x), of degrees 2
and 3, has degree 5, so its values at 6 points determine it: p(x_i) = g(x_i) u(x_i), 6
products. Rows of G and of A are powers of the points (the last point is infinity: the
leading coefficient), and B' holds the coefficients of Lagrange's polynomials,
prod_{j != i} (x - x_j).

In two dimensions each matrix acts from both sides: y = A' [ (G g G') * (B' d B) ] A,
36 products for 16 outputs instead of 144.

The points decide the rounding errors. 0, 1, -1, 2, -2 are common. 0, 3/4, -3/4, 3/2,
-3/2 have half their error in float32 (winograd.py has the figures).
Sources: Winograd 1980, Arithmetic Complexity of Computations; Lavin, Gray 2016, section
4; Barabasz, Anderson, Soodhalter, Gregg 2020 on the choice of points.
"""

from fractions import Fraction
from math import prod

import numpy as np

OUTPUTS, TAPS = 4, 3
TILE = OUTPUTS + TAPS - 1  # 6 inputs
POINTS = tuple(Fraction(n, 4) for n in (0, 3, -3, 6, -6))


def product_of(roots):
    """The coefficients of prod (x - root), from the lowest power on."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [root * c for c in coefficients] + [Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


def matrices(points=POINTS):
    """(A' (4, 6), G (6, 3), B' (6, 6)) as lists of rows of fractions."""
    others = [[q for q in points if q != p] for p in points]
    last = [Fraction(0)] * (OUTPUTS - 1) + [Fraction(1)]
    A = [[*(p**i for p in points), last[i]] for i in range(OUTPUTS)]
    scale = [prod(p - q for q in rest) for p, rest in zip(points, others, strict=True)]
    G = [[p**j / s for j in range(TAPS)] for p, s in zip(points, scale, strict=True)]
    G.append([Fraction(0), Fraction(0), Fraction(1)])
    B = [[*product_of(rest), Fraction(0)] for rest in others] + [product_of(points)]
    return A, G, B


def transposed(rows):
    """The transpose of a list of rows."""
    return [list(column) for column in zip(*rows, strict=True)]


def as_floats(rows):
    """A matrix of fractions as float64: each number rounded once."""
    return np.array([[float(number) for number in row] for row in rows])
