"""Batch-norm, activation and max-pooling as formulas for one channel of one pixel; cpu.py puts them in order.

x, xh and their kin belong to a pixel, y and its kin to a window: `place` says which pixel of the window won, `here` which one this is.
Where nothing is pooled, a pixel is its own window and has won (`..._alone`); pixels that lie in no window are `..._left`.
"""

from refmaml.kernels.numba_runtime.row_formulas import row_formula

# ---- forward: xh = s (x - mean), y = the largest of leaky_relu(gamma xh + beta) --------------------------------------------------------


def leaky_relu(u, slope):
    """The activation: u where u > 0, slope u elsewhere; NaN passes through, and 0 times infinity is 0."""
    return (u <= 0).where((slope * slope <= 0).where(0, u * slope), u)


@row_formula("pixel: x", "sum: total")
def add_up(x):
    return {"total": x}


@row_formula("pixel: x", "channel: mean", "sum: square")
def add_squares(x, mean):
    return {"square": (x - mean) * (x - mean)}


@row_formula("pixel: x", "window: y", "channel: mean s gamma beta", "number: slope")
def forward_alone(x, y, mean, s, gamma, beta, slope):
    hat = s * (x - mean)
    return {"x": hat, "y": leaky_relu(gamma * hat + beta, slope)}


@row_formula(
    "pixel: x", "window: y place", "channel: mean s gamma beta", "number: slope here first"
)
def forward_pooled(x, y, place, mean, s, gamma, beta, slope, here, first):
    """The first pixel of a window is its best so far; NaN wins over everything."""
    hat = s * (x - mean)
    a = leaky_relu(gamma * hat + beta, slope)
    better = (a > y) | (a.is_nan() & y.is_number()) | here.is_place(first)
    return {"x": hat, "y": better.where(a, y), "place": better.where(here, place)}


@row_formula("pixel: x", "channel: mean s")
def forward_left(x, mean, s):
    return {"x": s * (x - mean)}


# ---- backward: du = dy where u > 0, slope dy elsewhere; dx = s gamma (du - <du> - xh <du xh>) ---------------------------------------


@row_formula("window: dy y", "number: slope", "sum: total")
def adjoint_of_u(dy, y, slope):
    """du, in place of dy: y > 0 where the u that won was."""
    du = (y <= 0).where(dy * slope, dy)
    return {"dy": du, "total": du}


@row_formula("pixel: xh", "window: du", "sum: product")
def add_products_alone(xh, du):
    return {"product": du * xh}


@row_formula("pixel: xh", "window: du place", "number: here", "sum: product")
def add_products_pooled(xh, du, place, here):
    return {"product": place.is_place(here).where(du * xh, 0)}


@row_formula("pixel: dx xh", "window: du", "channel: scale mean incline")
def backward_alone(dx, xh, du, scale, mean, incline):
    return {"dx": scale * (du - mean - xh * incline)}


@row_formula("pixel: dx xh", "window: du place", "channel: scale mean incline", "number: here")
def backward_pooled(dx, xh, du, place, scale, mean, incline, here):
    return {"dx": scale * (place.is_place(here).where(du, 0) - mean - xh * incline)}


@row_formula("pixel: dx xh", "channel: scale mean incline")
def backward_left(dx, xh, scale, mean, incline):
    return {"dx": scale * (mean * -1 - xh * incline)}


# ---- r_forward: rxh = s (rx - <rx> - xh <rx xh>), ru = rgamma xh + gamma rxh + rbeta ---------------------------------------------------


@row_formula("pixel: rx xh", "sum: total product")
def add_tangents(rx, xh):
    return {"total": rx, "product": rx * xh}


def tangents(rx, xh, mean, incline, s, gamma, rgamma, rbeta):
    """(rxh, ru)."""
    rhat = s * (rx - mean - xh * incline)
    return rhat, rgamma * xh + gamma * rhat + rbeta


@row_formula(
    "pixel: rx xh", "window: ry y", "channel: mean incline s gamma rgamma rbeta", "number: slope"
)
def r_forward_alone(rx, xh, ry, y, mean, incline, s, gamma, rgamma, rbeta, slope):
    rhat, ru = tangents(rx, xh, mean, incline, s, gamma, rgamma, rbeta)
    return {"rx": rhat, "ry": (y <= 0).where(ru * slope, ru)}


@row_formula(
    "pixel: rx xh",
    "window: ry y place",
    "channel: mean incline s gamma rgamma rbeta",
    "number: slope here",
)
def r_forward_pooled(rx, xh, ry, y, place, mean, incline, s, gamma, rgamma, rbeta, slope, here):
    rhat, ru = tangents(rx, xh, mean, incline, s, gamma, rgamma, rbeta)
    return {"rx": rhat, "ry": place.is_place(here).where((y <= 0).where(ru * slope, ru), ry)}


@row_formula("pixel: rx xh", "channel: mean incline s")
def r_forward_left(rx, xh, mean, incline, s):
    return {"rx": s * (rx - mean - xh * incline)}


# ---- r_backward: the product rule on backward --------------------------------------------------------------------------------


@row_formula("window: rdy du y", "number: slope", "sum: total rtotal")
def r_adjoint_of_u(rdy, du, y, slope):
    """rdu, in place of rdy."""
    rdu = (y <= 0).where(rdy * slope, rdy)
    return {"rdy": rdu, "total": du, "rtotal": rdu}


@row_formula("pixel: xh rxh", "window: du rdu", "sum: product rproduct")
def r_add_products_alone(xh, rxh, du, rdu):
    return {"product": du * xh, "rproduct": rdu * xh + du * rxh}


@row_formula("pixel: xh rxh", "window: du rdu place", "number: here", "sum: product rproduct")
def r_add_products_pooled(xh, rxh, du, rdu, place, here):
    won = place.is_place(here)
    return {"product": won.where(du * xh, 0), "rproduct": won.where(rdu * xh + du * rxh, 0)}


def r_backward(xh, rxh, dhat, rdhat, s, rs, mean, incline, rmean, rincline):
    """rdx from dxh = gamma du and its tangent."""
    return rs * (dhat - mean - xh * incline) + s * (rdhat - rmean - rxh * incline - xh * rincline)


@row_formula(
    "pixel: xh rxh", "window: du rdu", "channel: s rs gamma rgamma mean incline rmean rincline"
)
def r_backward_alone(xh, rxh, du, rdu, s, rs, gamma, rgamma, mean, incline, rmean, rincline):
    return {
        "rxh": r_backward(
            xh, rxh, gamma * du, rgamma * du + gamma * rdu, s, rs, mean, incline, rmean, rincline
        )
    }


@row_formula(
    "pixel: xh rxh",
    "window: du rdu place",
    "channel: s rs gamma rgamma mean incline rmean rincline",
    "number: here",
)
def r_backward_pooled(
    xh, rxh, du, rdu, place, s, rs, gamma, rgamma, mean, incline, rmean, rincline, here
):
    won = place.is_place(here)
    return {
        "rxh": r_backward(
            xh,
            rxh,
            won.where(gamma * du, 0),
            won.where(rgamma * du + gamma * rdu, 0),
            s,
            rs,
            mean,
            incline,
            rmean,
            rincline,
        )
    }


@row_formula("pixel: xh rxh", "channel: s rs mean incline rmean rincline")
def r_backward_left(xh, rxh, s, rs, mean, incline, rmean, rincline):
    return {
        "rxh": rs * (mean * -1 - xh * incline) + s * (rmean * -1 - rxh * incline - xh * rincline)
    }
