"""Small nets of linear and tanh layers in plain NumPy, in any arithmetic.

A net is a list of layers: ("linear", rows, columns, bias), ("tanh",) or ("context", n).
The loss is the mean squared error. Nothing here is refmaml's.
"""

import numpy as np


def arrays_of(net, theta):
    """The parameters of each layer: views of a flat vector, in the order of the net."""
    found, place = [], 0
    for kind, *sizes in net:
        shapes = []
        if kind == "linear":
            rows, columns, bias = sizes
            shapes = [(rows, columns), (rows,)] if bias else [(rows, columns)]
        elif kind == "context":
            shapes = [(sizes[0],)]
        layer = []
        for shape in shapes:
            layer.append(theta[place : place + int(np.prod(shape))].reshape(shape))
            place += int(np.prod(shape))
        found.append(layer)
    return found


def loss_and_gradient(net, theta, x, y):
    """(loss, gradient) of one task by backpropagation."""
    layers, inputs = arrays_of(net, theta), []
    for (kind, *_), w in zip(net, layers, strict=True):
        inputs.append(x)
        if kind == "linear":
            x = x @ w[0].T + (w[1] if len(w) > 1 else 0)
        elif kind == "tanh":
            x = np.tanh(x)
        else:
            x = np.concatenate([x, np.broadcast_to(w[0], (len(x), len(w[0])))], axis=1)
    d, grads = 2 * (x - y) / y.size, []
    for (kind, *_), w, a in zip(net[::-1], layers[::-1], inputs[::-1], strict=True):
        if kind == "linear":
            grads.append([d.T @ a, d.sum(axis=0)][: len(w)])
            d = d @ w[0]
        elif kind == "tanh":
            grads.append([])
            d = d * (1 - np.tanh(a) ** 2)
        else:
            grads.append([d[:, -len(w[0]) :].sum(axis=0)])
            d = d[:, : -len(w[0])]
    flat = [g.ravel() for layer in grads[::-1] for g in layer]
    return ((x - y) ** 2).mean(), np.concatenate(flat)


def meta_loss(net, theta, batch, alpha, steps, moves):
    """The mean query loss after steps theta - alpha moves * gradient on each task.

    moves  (P,): 1 for a parameter that takes inner steps, 0 for others
    """
    total = 0
    for x, y, xq, yq in zip(*batch.all_arrays, strict=True):
        phi = theta
        for _ in range(steps):
            phi = phi - alpha * moves * loss_and_gradient(net, phi, x, y)[1]
        total = total + loss_and_gradient(net, phi, xq, yq)[0]
    return total / len(batch)
