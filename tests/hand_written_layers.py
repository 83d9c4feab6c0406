"""Layers as users write them, each with a place for a fault."""

import numpy as np

from refmaml import kernels


def batch_norm(fault="", passes=("x", "weight", "bias")):
    """backward(x, params, dy, layer) of batch-norm by the chain rule, with a fault."""

    def backward(x, params, dy, layer):
        axes = {"per image": (2, 3), "per example": (1, 2, 3)}.get(fault, (0, 2, 3))
        n = int(np.prod([x.shape[a] for a in axes]))
        c = x - x.mean(axes, keepdims=True)
        var = (c**2).sum(axes, keepdims=True) / (n - (fault == "ddof"))
        s = 1 / np.sqrt(var + layer.eps)
        if fault == "eps outside":
            s = 1 / (np.sqrt(var) + layer.eps)
        g = dy * (1 if fault == "no gamma" else params["weight"][None, :, None, None])
        dvar = (g * c).sum(axes, keepdims=True) * -0.5 * s**3
        dmu = -(g * s).sum(axes, keepdims=True)
        if fault != "no zero term":
            dmu = dmu + dvar * (-2 * c).mean(axes, keepdims=True)
        dx = g * s + dvar * 2 * c / n + dmu / n
        if fault == "mean not over n":
            dx = g * s + dvar * 2 * c / n + dmu
        if fault == "no mean term":
            dx = g * s + dvar * 2 * c / n
        if fault == "no variance term":
            dx = g * s + dmu / n
        if fault == "statistics constant":
            dx = g * s
        if fault == "variance over n - 1":
            dx = g * s + dvar * 2 * c / (n - 1) + dmu / n
        if fault == "sign":
            dx = -dx
        dw = (dy * (x if fault == "sum takes x" else c * s)).sum((0, 2, 3))
        db = dy.sum((0, 2, 3)) / (len(x) if fault == "db averaged" else 1)
        return {n: {"x": dx, "weight": dw, "bias": db}[n] for n in passes}

    return backward


def max_pool(rule, window=2, stride=2):
    def backward(x, params, dy):
        dx = np.zeros(x.shape)
        for i in range(dy.shape[2]):
            for j in range(dy.shape[3]):
                at = slice(i * stride, i * stride + window), slice(j * stride, j * stride + window)
                part = x[:, :, *at]
                top = part.max((2, 3), keepdims=True)
                hit = np.isclose(part, top) if rule == "isclose" else part == top
                hit = np.abs(part - top) < rule if isinstance(rule, float) else hit
                flat = hit.reshape(*hit.shape[:2], -1)
                if rule == "last":
                    flat = np.eye(window**2)[::-1][flat[..., ::-1].argmax(-1)]
                elif rule == "first":
                    flat = np.eye(window**2)[flat.argmax(-1)]
                elif rule == "split":
                    flat = flat / flat.sum(-1, keepdims=True)
                share = dy[:, :, i, j, None, None] * flat.reshape(part.shape)
                if rule == "overwrites":
                    dx[:, :, *at] = np.where(share != 0, share, dx[:, :, *at])
                else:
                    dx[:, :, *at] += share
        return dx

    return backward


def by_own_code(pass_name, spoil=lambda a: a):
    """A pass of whatever layer it is called with."""
    k = kernels.reference()

    def rows(arrays):
        return {n: a[None] for n, a in arrays.items()}

    def adjoints(dx, dw):
        return {"x": spoil(dx[0]), **{n: a[0] for n, a in dw.items()}}

    def backward(x, params, dy, layer):
        w = rows(params)
        dw = {n: np.empty_like(a) for n, a in w.items()}
        return adjoints(layer.backward(k, dw, w, layer.forward(k, w, x[None])[1], dy[None]), dw)

    def forward(x, params, layer):
        return layer.forward(k, rows(params), x[None])[0][0]

    def r_forward(x, params, rx, rparams, layer):
        w = rows(params)
        saved = layer.forward(k, w, x[None])[1]
        return layer.r_forward(k, w, rows(rparams), saved, rx[None])[0][0]

    def r_backward(x, params, dy, rx, rparams, rdy, layer):
        w, rw = rows(params), rows(rparams)
        saved = layer.forward(k, w, x[None])[1]
        rsaved = layer.r_forward(k, w, rw, saved, rx[None])[1]
        rdw = {n: np.empty_like(a) for n, a in w.items()}
        return adjoints(layer.r_backward(k, rdw, w, rw, saved, rsaved, dy[None], rdy[None]), rdw)

    return {f.__name__: f for f in (backward, forward, r_forward, r_backward)}[pass_name]
