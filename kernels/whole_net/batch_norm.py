"""Batch-norm with its activation and pooling in a whole net: where its numbers are.

norm_act_pool computes the four passes. These functions make the arrays of a gamma or
beta that the net does not have; so the passes of the net make none (passes.py).
"""

from refmaml.kernels.norm_act_pool import cpu as norm_act_pool
from refmaml.kernels.numba_runtime.external_functions import external
from refmaml.kernels.whole_net import columns as at
from refmaml.kernels.whole_net.group_norm import LISTS, ROW, flat
from refmaml.kernels.whole_net.images import channel_gradients, channel_values, scale_of
from refmaml.kernels.whole_net.products import list_of

WON = "int16[::1]"  # the type of the winners


# fmt: off
@external(f"{ROW}, {LISTS}, F[::1], {WON}, {flat(3)}, F, F", on_demand=True)
def forward(row, lists, N, y, won, a, work, w, eps, slope):
    gamma = channel_values(w, row[at.WEIGHT], row, 1)
    beta = channel_values(w, row[at.BIAS], row, 0)
    norm_act_pool.forward(y, won, a, scale_of(row, work), gamma, beta, eps, slope,
                          list_of(row, lists, 0), N)


@external(f"{ROW}, {LISTS}, {flat(3)}, {WON}, {flat(4)}, F", on_demand=True)
def backward(row, lists, N, dx, dy, y, won, a, work, w, grad, slope):
    dgamma = channel_gradients(grad, row[at.WEIGHT], row)
    dbeta = channel_gradients(grad, row[at.BIAS], row)
    gamma = channel_values(w, row[at.WEIGHT], row, 1)
    norm_act_pool.backward(dx, dgamma, dbeta, dy, y, won, a, scale_of(row, work), gamma, slope,
                           list_of(row, lists, 0), N)


@external(f"{ROW}, {ROW}, {LISTS}, {flat(3)}, {WON}, {flat(5)}, F", on_demand=True)
def r_forward(row, rrow, lists, N, ry, ra, y, won, a, work, rwork, w, v, slope):
    gamma = channel_values(w, row[at.WEIGHT], row, 1)
    rgamma = channel_values(v, row[at.WEIGHT], row, 0)
    rbeta = channel_values(v, row[at.BIAS], row, 0)
    norm_act_pool.r_forward(ry, scale_of(rrow, rwork), ra, y, won, a, scale_of(row, work), gamma,
                            rgamma, rbeta, slope, list_of(row, lists, 0), N)


@external(f"{ROW}, {ROW}, {LISTS}, {flat(4)}, {WON}, {flat(6)}, F", on_demand=True)
def r_backward(row, rrow, lists, N, ra, dy, rdy, y, won, a, work, rwork, w, v, grad, slope):
    rdgamma = channel_gradients(grad, row[at.WEIGHT], row)
    rdbeta = channel_gradients(grad, row[at.BIAS], row)
    gamma = channel_values(w, row[at.WEIGHT], row, 1)
    rgamma = channel_values(v, row[at.WEIGHT], row, 0)
    norm_act_pool.r_backward(ra, rdgamma, rdbeta, dy, rdy, y, won, a, scale_of(row, work),
                             scale_of(rrow, rwork), gamma, rgamma, slope, list_of(row, lists, 0),
                             N)
# fmt: on
