"""The conditional neural process by its definition: one example after another.

It shares no code with refmaml/methods/cnp.py: matrices are read off the flat vector in
the order of their definition, and multiplied by hand.
"""

import numpy as np


def encoding(sizes, eta, examples):
    """r (S,): a net's mean over examples (N, I), of weights eta (E,); 0 of none."""
    total = np.zeros(sizes[-1], eta.dtype)
    for h in examples:
        first = 0
        for number, (I, O) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            A, first = eta[first : first + I * O].reshape(O, I), first + I * O
            h, first = A @ h + eta[first : first + O], first + O
            if number < len(sizes) - 2:
                h = np.where(h.real > 0, h, 0)
        total = total + h
    return total / max(1, len(examples))


def targets_of(y, classes):
    """One task's targets (N, D): real numbers as they are, labels as unit vectors."""
    return y if y.dtype.kind == "f" else np.eye(classes)[y]


def groups_of(net, method, task):
    """[examples (N, I)] of the first task: those of each mean, one after another."""
    D, y = net.output_shape(net.input_shape)[0], task.y_support[0]
    x = task.x_support[0].reshape(len(y), -1)
    if method.by_class:
        return [x[y == c] for c in range(D)]
    return [np.concatenate([x, targets_of(y, D)], axis=1)]


def adapted(net, method, task, meta):
    """phi (B, P) for each row [theta, eta] of meta (B, M), on the first task."""
    P, context = net.num_params, net.mask(("context",))
    groups = groups_of(net, method, task)
    sizes = (groups[0].shape[1], *method.encoder, int(context.sum()) // len(groups))
    phi = meta[:, :P].copy()
    for row, point in zip(phi, meta, strict=True):
        row[context] = np.concatenate([encoding(sizes, point[P:], part) for part in groups])
    return phi
