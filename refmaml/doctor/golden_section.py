"""The minimum of a function of one number by golden sections."""

import numpy as np

GOLDEN = (np.sqrt(5) - 1) / 2
PROMISE = 8  # rounds of a golden section after which a root shows


def golden_section(f, low, high, start, rounds=80):
    """The minimum of f between two ends, to rounding; None where it is no root.

    At a root the largest error falls with the distance. So after PROMISE rounds, which
    leave 1/50 of the interval, it must be below a fifth of f at the start.
    """
    a, b = low, high
    x, y = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    fx, fy = f(x), f(y)
    for step in range(rounds):
        if b - a <= 1e-15 * abs(b):
            break
        if step == PROMISE and min(fx, fy) > 0.2 * start:
            return None
        if fx <= fy:
            b, y, fy = y, x, fx
            x = b - GOLDEN * (b - a)
            fx = f(x)
        else:
            a, x, fx = x, y, fy
            y = a + GOLDEN * (b - a)
            fy = f(y)
    return x if fx <= fy else y
