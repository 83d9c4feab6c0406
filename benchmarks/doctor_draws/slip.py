"""The place of one mistake in a drawn function."""

from dataclasses import dataclass
from typing import Any


def same(value, *_):
    return value


@dataclass(frozen=True)
class Slip:
    """What replaces a line; each has the value of the right line as its first argument.

    steps      K
    support    (x, y) of the inner loop, from (this task's four arrays, k)
    query      (x, y) of the outer loss, from the same
    start      phi_0, from (theta, last task's phi_K or None, library)
    point      where the gradient is taken, from (phi, phi_0, k)
    gradient   the inner gradient, from (g, phi, phi_0, library, k)
    rate       the step size, from (alpha, problem, k)
    step       phi_{k+1}, from (phi, phi - alpha d, phi_0, library)
    losses     the outer loss of a task, from the query losses at phi_0 .. phi_K
    total      the outer loss, from the tasks' losses
    meta       the answer, from the meta-gradient and the library
    product    by_recursion: H v, from (H v, v, its inputs, library)
    back       by_recursion: which steps the way back visits, from [K-1 .. 0]
    """

    steps: Any = same
    support: Any = None
    query: Any = None
    start: Any = None
    point: Any = None
    gradient: Any = same
    rate: Any = same
    step: Any = None
    losses: Any = None
    total: Any = None
    meta: Any = same
    product: Any = same
    back: Any = same


RIGHT = Slip()
