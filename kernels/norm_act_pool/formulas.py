"""Batch-norm, activation and max-pooling as formulas for one channel of one pixel.

cpu.py and r_passes.py call them in order. x, xh and their derivatives belong to a
pixel, y and its derivatives to a window. `winner` is the tap (the position in the
window) of the pixel that won; `tap` is the tap of the pixel at hand. There are three
versions of most formulas:

    ..._unpooled   no pooling: each pixel is a window and has won
    ..._pooled     the pixel at one tap of each window
    ..._outside    pixels that are in no window
"""

from refmaml.kernels.numba_runtime.row_formulas import row_formula

# ---- forward: xh = s (x - mean), y = the largest of leaky_relu(gamma xh + beta) ------


def leaky_relu(u, slope):
    """u where u > 0, slope u elsewhere; NaN stays NaN, and 0 times infinity is 0."""
    return (u <= 0).where((slope * slope <= 0).where(0, u * slope), u)


@row_formula("pixel: x", "sum: total")
def add_values(x):
    return {"total": x}


@row_formula("pixel: x", "channel: mean", "sum: rest square")
def add_centred(x, mean):
    centred = x - mean
    return {"rest": centred, "square": centred * centred}


@row_formula("pixel: x", "window: y", "channel: mean offset s gamma beta", "number: slope")
def forward_unpooled(x, y, mean, offset, s, gamma, beta, slope):
    """<x> is mean + offset: mean alone is rounded, and x is centred twice."""
    xh = s * (x - mean - offset)
    return {"x": xh, "y": leaky_relu(gamma * xh + beta, slope)}


@row_formula(
    "pixel: x", "window: y winner", "channel: mean offset s gamma beta", "number: slope tap first"
)
def forward_pooled(x, y, winner, mean, offset, s, gamma, beta, slope, tap, first):
    """The first of equals wins; NaN wins over every number. first: tap 0."""
    xh = s * (x - mean - offset)
    a = leaky_relu(gamma * xh + beta, slope)
    better = (a > y) | (a.is_nan() & y.is_not_nan()) | tap.equals(first)
    return {"x": xh, "y": better.where(a, y), "winner": better.where(tap, winner)}


@row_formula("pixel: x", "channel: mean offset s")
def forward_outside(x, mean, offset, s):
    return {"x": s * (x - mean - offset)}


# ---- backward: du = dy where u > 0, slope dy elsewhere;
# dx = s gamma (du - <du> - xh <du xh>) ------------------------------------------------


@row_formula("window: dy y", "number: slope", "sum: total")
def adjoint_of_u(dy, y, slope):
    """du, in place of dy. y > 0 where the winning u was."""
    du = (y <= 0).where(dy * slope, dy)
    return {"dy": du, "total": du}


@row_formula("pixel: xh", "window: du", "sum: product")
def add_products_unpooled(xh, du):
    return {"product": du * xh}


@row_formula("pixel: xh", "window: du winner", "number: tap", "sum: product")
def add_products_pooled(xh, du, winner, tap):
    return {"product": winner.equals(tap).where(du * xh, 0)}


@row_formula("pixel: dx xh", "window: du", "channel: scale mean projection")
def backward_unpooled(dx, xh, du, scale, mean, projection):
    return {"dx": scale * (du - mean - xh * projection)}


@row_formula("pixel: dx xh", "window: du winner", "channel: scale mean projection", "number: tap")
def backward_pooled(dx, xh, du, winner, scale, mean, projection, tap):
    return {"dx": scale * (winner.equals(tap).where(du, 0) - mean - xh * projection)}


@row_formula("pixel: dx xh", "channel: scale mean projection")
def backward_outside(dx, xh, scale, mean, projection):
    return {"dx": scale * (mean * -1 - xh * projection)}


# ---- r_forward: rxh = s (rx - <rx> - xh <rx xh>), ru = rgamma xh + gamma rxh + rbeta


@row_formula("pixel: rx xh", "channel: origin", "sum: total product")
def add_tangents(rx, xh, origin):
    """Sums of rx - origin: the product with rx itself would multiply <rx> by <xh>."""
    return {"total": rx - origin, "product": (rx - origin) * xh}


def tangents(rx, xh, origin, mean, projection, s, gamma, rgamma, rbeta):
    """(rxh, ru); <rx> is origin + mean."""
    rxh = s * (rx - origin - mean - xh * projection)
    return rxh, rgamma * xh + gamma * rxh + rbeta


@row_formula(
    "pixel: rx xh",
    "window: ry y",
    "channel: origin mean projection s gamma rgamma rbeta",
    "number: slope",
)
def r_forward_unpooled(rx, xh, ry, y, origin, mean, projection, s, gamma, rgamma, rbeta, slope):
    rxh, ru = tangents(rx, xh, origin, mean, projection, s, gamma, rgamma, rbeta)
    return {"rx": rxh, "ry": (y <= 0).where(ru * slope, ru)}


@row_formula(
    "pixel: rx xh",
    "window: ry y winner",
    "channel: origin mean projection s gamma rgamma rbeta",
    "number: slope tap",
)
def r_forward_pooled(
    rx, xh, ry, y, winner, origin, mean, projection, s, gamma, rgamma, rbeta, slope, tap
):
    rxh, ru = tangents(rx, xh, origin, mean, projection, s, gamma, rgamma, rbeta)
    return {"rx": rxh, "ry": winner.equals(tap).where((y <= 0).where(ru * slope, ru), ry)}


@row_formula("pixel: rx xh", "channel: origin mean projection s")
def r_forward_outside(rx, xh, origin, mean, projection, s):
    return {"rx": s * (rx - origin - mean - xh * projection)}


# ---- r_backward: the product rule on backward ----------------------------------------


@row_formula("window: rdy du y", "number: slope", "sum: total rtotal")
def r_adjoint_of_u(rdy, du, y, slope):
    """rdu, in place of rdy."""
    rdu = (y <= 0).where(rdy * slope, rdy)
    return {"rdy": rdu, "total": du, "rtotal": rdu}


@row_formula("pixel: xh rxh", "window: du rdu", "sum: product rproduct")
def r_add_products_unpooled(xh, rxh, du, rdu):
    return {"product": du * xh, "rproduct": rdu * xh + du * rxh}


@row_formula("pixel: xh rxh", "window: du rdu winner", "number: tap", "sum: product rproduct")
def r_add_products_pooled(xh, rxh, du, rdu, winner, tap):
    won = winner.equals(tap)
    return {"product": won.where(du * xh, 0), "rproduct": won.where(rdu * xh + du * rxh, 0)}


# fmt: off
def r_backward(xh, rxh, dxh, rdxh, s, rs, mean, projection, rmean, rprojection):
    """rdx from dxh = gamma du and its tangent."""
    return (rs * (dxh - mean - xh * projection)
            + s * (rdxh - rmean - rxh * projection - xh * rprojection))


@row_formula("pixel: xh rxh", "window: du rdu",
             "channel: s rs gamma rgamma mean projection rmean rprojection")
def r_backward_unpooled(xh, rxh, du, rdu, s, rs, gamma, rgamma, mean, projection, rmean,
                        rprojection):
    dxh, rdxh = gamma * du, rgamma * du + gamma * rdu
    return {"rxh": r_backward(xh, rxh, dxh, rdxh, s, rs, mean, projection, rmean, rprojection)}


@row_formula("pixel: xh rxh", "window: du rdu winner",
             "channel: s rs gamma rgamma mean projection rmean rprojection", "number: tap")
def r_backward_pooled(xh, rxh, du, rdu, winner, s, rs, gamma, rgamma, mean, projection, rmean,
                      rprojection, tap):
    won = winner.equals(tap)
    dxh, rdxh = won.where(gamma * du, 0), won.where(rgamma * du + gamma * rdu, 0)
    return {"rxh": r_backward(xh, rxh, dxh, rdxh, s, rs, mean, projection, rmean, rprojection)}


@row_formula("pixel: xh rxh", "channel: s rs mean projection rmean rprojection")
def r_backward_outside(xh, rxh, s, rs, mean, projection, rmean, rprojection):
    return {"rxh": rs * (mean * -1 - xh * projection)
            + s * (rmean * -1 - rxh * projection - xh * rprojection)}
# fmt: on
