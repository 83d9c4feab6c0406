"""Group norm and a piecewise linear activation as formulas for one channel of one row.

task_passes.py calls them in order; group_norm.md derives them. x, xh, y and their
derivatives belong to a row, the position of one example. gamma and beta, in "window",
belong to the same position, or to all positions: the lists of offsets say which. So
gamma stays inside the means over a group, where batch-norm's can be taken out. What
both norms share is in norm_act_pool/formulas.py.
"""

from refmaml.kernels.norm_act_pool.formulas import leaky_relu, tangents
from refmaml.kernels.norm_act_pool.formulas import r_backward as r_adjoint
from refmaml.kernels.numba_runtime.row_formulas import row_formula


@row_formula("pixel: x y", "window: gamma beta", "channel: mean offset s", "number: slope")
def normalise(x, y, gamma, beta, mean, offset, s, slope):
    """xh in place of x, and y. <x> is mean + offset: mean alone is rounded."""
    xh = s * (x - mean - offset)
    return {"x": xh, "y": leaky_relu(gamma * xh + beta, slope)}


@row_formula("pixel: xh du", "window: gamma", "sum: total product dgamma")
def add_products(xh, du, gamma):
    """Sums of dxh, dxh xh and du xh."""
    dxh = gamma * du
    return {"total": dxh, "product": dxh * xh, "dgamma": du * xh}


@row_formula("pixel: xh du dgamma dbeta")
def add_gradients(xh, du, dgamma, dbeta):
    """One example's terms of the gradients of a gamma and a beta for each position."""
    return {"dgamma": dgamma + du * xh, "dbeta": dbeta + du}


@row_formula("pixel: dx xh du", "window: gamma", "channel: s mean projection")
def adjoint(dx, xh, du, gamma, s, mean, projection):
    return {"dx": s * (gamma * du - mean - xh * projection)}


# ---- along a direction ---------------------------------------------------------------


@row_formula(
    "pixel: rx xh ry y",
    "window: gamma rgamma rbeta",
    "channel: mean offset projection s",
    "number: slope",
)
def r_normalise(rx, xh, ry, y, gamma, rgamma, rbeta, mean, offset, projection, s, slope):
    """rxh in place of rx, and ry; <rx> is mean + offset."""
    rxh, ru = tangents(rx, xh, mean, offset, projection, s, gamma, rgamma, rbeta)
    return {"rx": rxh, "ry": (y <= 0).where(ru * slope, ru)}


@row_formula(
    "pixel: xh rxh du rdu", "window: gamma rgamma", "sum: total rtotal product rproduct rdgamma"
)
def r_add_products(xh, rxh, du, rdu, gamma, rgamma):
    """Sums of dxh and dxh xh, their tangents, and the tangent of du xh."""
    dxh, rdxh = gamma * du, rgamma * du + gamma * rdu
    return {
        "total": dxh,
        "rtotal": rdxh,
        "product": dxh * xh,
        "rproduct": rdxh * xh + dxh * rxh,
        "rdgamma": rdu * xh + du * rxh,
    }


@row_formula("pixel: xh rxh du rdu rdgamma rdbeta")
def r_add_gradients(xh, rxh, du, rdu, rdgamma, rdbeta):
    """The tangent of `add_gradients`."""
    return {"rdgamma": rdgamma + rdu * xh + du * rxh, "rdbeta": rdbeta + rdu}


@row_formula(
    "pixel: xh rxh du rdu",
    "window: gamma rgamma",
    "channel: s rs mean projection rmean rprojection",
)
def r_result(xh, rxh, du, rdu, gamma, rgamma, s, rs, mean, projection, rmean, rprojection):
    """rdx in place of rxh."""
    dxh, rdxh = gamma * du, rgamma * du + gamma * rdu
    return {"rxh": r_adjoint(xh, rxh, dxh, rdxh, s, rs, mean, projection, rmean, rprojection)}
