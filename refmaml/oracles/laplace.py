"""LLAMA's Laplace term written out: dense matrices in the arithmetic of their argument.

Nothing here has a third derivative or an adjoint of a factor. With a complex argument
the imaginary part of log det carries the exact derivative.
"""

import numpy as np

from refmaml.layers.bilinear import Linear
from refmaml.layers.extents import pair
from refmaml.network import Network


def log_det(M):
    """log det M (B,) of matrices (B, n, n), real or complex."""
    sign, size = np.linalg.slogdet(M)
    return np.log(sign) + size if np.iscomplexobj(M) else size


def hessians(net, w, x, y, places):
    """H (B, n, n) at w (B, P), for inputs of the same B tasks; one product a column."""
    primal = net.primal(w, x, y)
    columns = []
    for place in places:
        v = np.zeros((1, net.num_params), w.dtype)
        v[0, place] = 1
        columns.append(net.hvp(primal, v)[:, places])
    return np.stack(columns, axis=2)


def of_hessian(net, w, x, y, places, precision):
    """log det(H + tau I) (B,)."""
    H = hessians(net, w, x, y, places)
    return log_det(H + precision * np.eye(len(places)))


def of_factors(net, w, x, y, layers, precision):
    """log det of the Kronecker factors of the layers with these numbers, (B,)."""
    plain = Network(net.named_layers, net.loss_function, net.input_shape)
    primal = plain.primal(w, x, y)
    scale = net.loss_function.scale(*primal.outputs.shape[1:])
    total = 0
    for i in layers:
        for a, d in zip(*rows_of(plain.layers[i], primal.saved[i], primal.dys[i]), strict=True):
            N, places = x.shape[1], a.shape[1] // x.shape[1]
            A = np.einsum("bni,bnj->bij", a, a) / N
            G = np.einsum("bni,bnj->bij", d, d) / (scale * places)
            shift = np.sqrt(precision)
            total = total + G.shape[1] * log_det(A + shift * np.eye(A.shape[1]))
            total = total + A.shape[1] * log_det(G + shift * np.eye(G.shape[1]))
    return total


def rows_of(layer, x, dy):
    """For each group of channels its windows (B, n, F) and its adjoints (B, n, O)."""
    ones = [np.ones((len(x), 1))] if layer.bias else []
    if isinstance(layer, Linear):
        each = [np.concatenate([x[:, n], *ones], axis=1) for n in range(x.shape[1])]
        return [np.stack(each, axis=1)], [dy]
    kernel, stride, padding, (H, W) = layer.geometry(x.shape[3:])
    dilation = pair(layer.dilation, "dilation")
    around = np.pad(x, [(0, 0)] * 3 + [tuple(ends) for ends in padding])
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    windows, adjoints = [], []
    for g in range(layer.groups):
        a, d = [], []
        for n in range(x.shape[1]):
            for i in range(H):
                for j in range(W):
                    rows = stride[0] * i + dilation[0] * np.arange(kernel[0])
                    columns = stride[1] * j + dilation[1] * np.arange(kernel[1])
                    seen = around[:, n, g * per_in : (g + 1) * per_in][:, :, rows][..., columns]
                    a.append(np.concatenate([seen.reshape(len(x), -1), *ones], axis=1))
                    d.append(dy[:, n, g * per_out : (g + 1) * per_out, i, j])
        windows.append(np.stack(a, axis=1))
        adjoints.append(np.stack(d, axis=1))
    return windows, adjoints


def term(net, method, phi, x, y, adapting):
    """The Laplace term of rows phi (B, P), as the method's curvature says: (B,)."""
    if method.curvature == "kronecker":
        kinds = ("Linear", "Conv2d")
        layers = [
            i
            for i, layer in enumerate(net.layers)
            if type(layer).__name__ in kinds
            and adapting[net.parameters.slices[f"{net.names[i]}.weight"]].any()
        ]
        return of_factors(net, phi, x, y, layers, method.precision)
    return of_hessian(net, phi, x, y, np.flatnonzero(adapting), method.precision)
