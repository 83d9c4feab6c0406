"""Convolution and pooling as loops over windows, with every choice an argument.

The right choices give the layer; a mistake is another value of one of them."""

from itertools import product as pairs
from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """How windows lie on an image; pairs are for rows and columns.

    taps      how many of the kernel's rows and columns are used
    stride, before, after (padding), dilation
    image     how many of the image's rows and columns are read
    flip      whether the kernel is reversed in both directions
    """

    taps: tuple
    stride: tuple
    before: tuple
    after: tuple
    dilation: tuple
    image: tuple
    flip: bool = False

    def extents(self):
        """How many windows fit."""
        spans = [d * (k - 1) + 1 for k, d in zip(self.taps, self.dilation, strict=True)]
        sides = zip(self.image, self.before, self.after, spans, self.stride, strict=True)
        return tuple(max((H + b + a - k) // s + 1, 0) for H, b, a, k, s in sides)

    def places(self, extents):
        """(i, j, p, q, row, column) of all taps that lie on the image."""
        (sh, sw), (dh, dw), (t, left) = self.stride, self.dilation, self.before
        for i, j in pairs(range(extents[0]), range(extents[1])):
            for p, q in pairs(range(self.taps[0]), range(self.taps[1])):
                row, column = i * sh + p * dh - t, j * sw + q * dw - left
                if 0 <= row < self.image[0] and 0 <= column < self.image[1]:
                    yield i, j, p, q, row, column


def conv_forward(x, w, bias, g):
    """y (N, O, ...) with the geometry's own number of windows."""
    w = w[..., ::-1, ::-1] if g.flip else w
    y = np.zeros((len(x), len(w), *g.extents()))
    for i, j, p, q, row, column in g.places(g.extents()):
        y[:, :, i, j] += x[:, :, row, column] @ w[:, :, p, q].T
    return y if bias is None else y + bias[:, None, None]


def conv_backward(x, w, dy, g, own):
    """{"x": dx, "weight": dw, "bias": db}; w (O, C, kH, kW).

    own   loop over the geometry's own number of windows, not over dy's
    """
    extents = tuple(np.minimum(dy.shape[2:], g.extents())) if own else dy.shape[2:]
    w = w[..., ::-1, ::-1] if g.flip else w
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for i, j, p, q, row, column in g.places(extents):
        dx[:, :, row, column] += dy[:, :, i, j] @ w[:, :, p, q]
        dw[:, :, p, q] += dy[:, :, i, j].T @ x[:, :, row, column]
    dw = dw[..., ::-1, ::-1] if g.flip else dw
    db = dy[:, :, : extents[0], : extents[1]].sum((0, 2, 3))
    return {"x": dx, "weight": dw, "bias": db}


def dense_weight(w, groups):
    """(O, C, kH, kW) with zeros between groups, of (O, C / G, kH, kW)."""
    O, I = w.shape[:2]
    out = np.zeros((O, I * groups, *w.shape[2:]))
    for o in range(O):
        g = o // (O // groups)
        out[o, g * I : (g + 1) * I] = w[o]
    return out


def grouped_weight(dw, groups, I):
    """The adjoint of dense_weight."""
    O = len(dw)
    starts = [o // (O // groups) * I for o in range(O)]
    return np.stack([dw[o, s : s + I] for o, s in enumerate(starts)])


# ---- maxima --------------------------------------------------------------------------

RULES = {
    "the first of equal values in row order": "first",
    "the last of equal values in row order": "last",
    "the first of equal values in column order": "first column",
    "the last of equal values in column order": "last column",
    "each of the equal values, in full": "all",
    "the equal values in equal parts": "split",
}


def max_pool_backward(x, dy, window, stride, rule="first", tolerance=0.0, adds=True):
    """dx of max-pooling.

    rule       which of the entries within `tolerance` of the largest get dy
    adds       False: where windows overlap, a later one overwrites an earlier one
    """
    dx = np.zeros(x.shape)
    for i, j in pairs(range(dy.shape[2]), range(dy.shape[3])):
        rows = slice(i * stride[0], i * stride[0] + window[0])
        columns = slice(j * stride[1], j * stride[1] + window[1])
        part = x[:, :, rows, columns]
        if not part.size:
            continue
        tied = part >= part.max((2, 3), keepdims=True) - tolerance
        add = dy[:, :, i, j, None, None] * shares(tied, rule)
        if adds:
            dx[:, :, rows, columns] += add
        else:
            dx[:, :, rows, columns] = np.where(add != 0, add, dx[:, :, rows, columns])
    return dx


def shares(tied, rule):
    """What each of the tied entries (N, C, h, w) gets of 1."""
    if rule == "all":
        return tied.astype(float)
    if rule == "split":
        return tied / tied.sum((2, 3), keepdims=True)
    by_column = rule.endswith("column")
    a = tied.swapaxes(2, 3) if by_column else tied
    flat = a.reshape(*a.shape[:2], -1)
    flat = flat[..., ::-1] if rule.startswith("last") else flat
    one = np.eye(flat.shape[-1])[flat.argmax(-1)]
    one = one[..., ::-1] if rule.startswith("last") else one
    one = one.reshape(a.shape)
    return one.swapaxes(2, 3) if by_column else one
