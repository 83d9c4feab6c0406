"""The numbers of an update rule for the compiled inner loop; see update_rules.py."""

from typing import NamedTuple

import numpy as np

PLAIN, SGD, ADAM = range(3)
# The columns of `numbers`, which has a row for every step; N_B1 is 1 - b1, NN_B2 is
# 2 (1 - b2). NORM_LIMIT is 0 without clipping; NORM_EPS is added to the norm.
# fmt: off
(ZERO, ONE, MU, F, WH, WM, B1, N_B1, B2, N_B2, NN_B2, C1, C2, EPS, ROOT, DECAY, DECOUPLED,
 NORM_LIMIT, NORM_EPS) = range(19)
# fmt: on
COLUMNS = NORM_EPS + 1
# The first rows of a rule's memory: adjoints of m and v, and m of SGD.
SIG_M, SIG_V, MOMENTUM, FIXED = range(4)
G, M, V = range(3)  # the groups of rows after these, with a row for each step


class UpdateRule(NamedTuple):
    """PLAIN, SGD or ADAM, and the numbers (steps, COLUMNS)."""

    kind: int
    numbers: np.ndarray


NO_RULE = UpdateRule(PLAIN, np.zeros((1, 1)))


def num_rows(kind, steps, order):
    """How many parameter vectors a rule needs: FIXED, then g, m, v after each step."""
    if kind == PLAIN:
        return 0
    return FIXED + 3 * (steps if order > 1 else 1)
