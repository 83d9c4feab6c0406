"""Meta-Curvature's matrices as dense matrices: one Kronecker product for each array.

In row order the vector of G x_1 M_1 x_2 M_2 is (M_1 (x) M_2) times that of G.
"""

from functools import reduce
from math import prod

import numpy as np


def kronecker_products(net, mask, meta):
    """[(slice of an array, its matrices (B, n, n))] for rows meta (B, M).

    mask  1 where a parameter adapts: arrays without such have no matrices
    """
    found, place = [], net.num_params
    for part, shape in zip(net.blocks, net.shapes.values(), strict=True):
        if not mask[part].any():
            continue
        factors, taps = [], prod(shape[2:])
        for n in (*shape[:2], *((taps,) if taps > 1 else ())):
            factors.append(meta[:, place : place + n * n].reshape(-1, n, n))
            place += n * n
        rows = zip(*factors, strict=True)
        found.append((part, np.array([reduce(np.kron, matrices) for matrices in rows])))
    return found


def turned(g, products):
    """g (B, P) with each array under its matrix."""
    out = g.astype(np.result_type(g, *(dense for _, dense in products)))
    for part, dense in products:
        out[:, part] = np.einsum("bij,bj->bi", dense, g[:, part])
    return out
