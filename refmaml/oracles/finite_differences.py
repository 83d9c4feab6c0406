"""Central differences with the step that balances truncation and rounding."""

import numpy as np

# Truncation h^2 f'''/6 and rounding eps f / h are equal near h = eps^(1/3); Numerical
# Recipes section 5.7.
STEP = np.finfo(float).eps ** (1 / 3)
# The error at that step for f, f' and f''' of like size: 4e-10.
ERROR = 10 * np.finfo(float).eps ** (2 / 3)


def directional(f, x, v):
    """(f(x + h v) - f(x - h v)) / 2h with one Richardson extrapolation.

    The steps h and 2h together have an error of order h^4.
    """
    return extrapolated(f, x, v, STEP)


def extrapolated(f, x, v, step):
    """Central differences of `step` and 2 `step`, so that the h^2 term cancels."""

    def central(h):
        return (f(x + h * v) - f(x - h * v)) / (2 * h)

    return (4 * central(step) - central(2 * step)) / 3


# One extrapolation leaves a truncation of order h^4: it and rounding are equal near h =
# eps^(1/5), where both are eps^(4/5).
FOURTH_STEP = np.finfo(float).eps ** (1 / 5)
FOURTH_ERROR = 10 * np.finfo(float).eps ** (4 / 5)


def fourth_order(f, x, v):
    """The same with the larger step, for f whose fifth derivative is of like size."""
    return extrapolated(f, x, v, FOURTH_STEP)
