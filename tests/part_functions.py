"""Functions for the checks of single parts: losses drawn at random, exact gradients.

A loss is analytic in NumPy, so the complex step gives its gradient exactly.
"""

import numpy as np

TINY = 1e-30


def tree_map(function, *trees):
    """function(leaf, ...) on dicts, lists and arrays."""
    first = trees[0]
    if isinstance(first, dict):
        return {key: tree_map(function, *(t[key] for t in trees)) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(tree_map(function, *parts) for parts in zip(*trees, strict=True))
    return function(*trees)


def leaves(tree):
    """The arrays of a tree."""
    found = []
    tree_map(found.append, tree)
    return found


def gradient(loss, params):
    """The gradient of loss(params) by the complex step, in the structure of params."""
    arrays = [np.asarray(a, float) for a in leaves(params)]

    def value(arrays):
        left = iter(arrays)
        return loss(tree_map(lambda _: next(left), params))

    out = []
    for i, a in enumerate(arrays):
        g = np.empty(a.shape)
        for index in np.ndindex(a.shape):
            moved = a.astype(complex)
            moved[index] += 1j * TINY
            g[index] = value([*arrays[:i], moved, *arrays[i + 1 :]]).imag / TINY
        out.append(g)
    left = iter(out)
    return tree_map(lambda _: next(left), params)


def with_gradient(loss, params, change=lambda g: g):
    """fn(params) -> (gradient, loss), with a gradient that `change` may spoil.

    The check reads the gradient at `params` alone, so it is computed once.
    """
    once = change(gradient(loss, params))
    return lambda p: (once, float(np.real(loss(p))))


ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda z: z * (z.real > 0),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "sin": np.sin,
    "leaky": lambda z: np.where(z.real > 0, z, 0.1 * z),
}


def mean_square(z, y):
    return ((z - y) ** 2).mean()


def cross_entropy(z, y):
    z = z - z.real.max(1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    return -log_p[np.arange(len(z)), np.abs(y[:, 0] * 10).astype(int) % z.shape[1]].mean()


def huber(z, y):
    e = z - y
    return np.where(np.abs(e.real) < 1, e * e / 2, e * np.sign(e.real) - 0.5).mean()


def absolute(z, y):
    e = z - y
    return (e * np.sign(e.real)).mean()


LOSSES = (mean_square, cross_entropy, huber, absolute)
CONTAINERS = (
    lambda a, b, c: {"a": a, "b": b, "c": c},
    lambda a, b, c: [a, b, c],
    lambda a, b, c: {"body": {"w": a, "b": b}, "head": (c,)},
)


def drawn_net(rng):
    """(params, loss): a small net with a drawn activation, loss and container."""
    I, H, O, N = rng.integers(2, 5, 4)
    name = rng.choice(list(ACTIVATIONS))
    error, container = LOSSES[rng.integers(len(LOSSES))], CONTAINERS[rng.integers(3)]
    scale = 10.0 ** rng.uniform(-2, 1)
    x, y = rng.standard_normal((N, I)) / scale, rng.standard_normal((N, O))
    params = container(
        scale * rng.standard_normal((I, H)),
        rng.standard_normal(H) * rng.choice([0.0, 0.3]),
        rng.standard_normal((H, O)),
    )
    steps, rate = int(rng.integers(0, 3)), 0.05

    def loss(params):
        a, b, c = leaves(params)
        for _ in range(steps):  # an inner loop on the head: its gradient is known
            h = ACTIVATIONS[name](x @ a + b)
            c = c - rate * h.T @ (h @ c - y) / N
        return error(ACTIVATIONS[name](x @ a + b) @ c, y)

    return params, loss


def drawn_form(rng):
    """(params, loss): a function of one vector with badly scaled curvature."""
    n = int(rng.integers(1, 6))
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    A = q @ np.diag(10.0 ** rng.uniform(-3, 3, n)) @ q.T
    kind = rng.integers(3)

    def loss(w):
        value = w @ A @ w / 2
        return (value, np.log1p(value * value), np.exp(-value / np.trace(A)))[kind]

    return rng.standard_normal(n), loss


def drawn(seed):
    """(params, loss) of a seed."""
    rng = np.random.default_rng(seed)
    return (drawn_net, drawn_net, drawn_form)[seed % 3](rng)


def corrupted(g, rng):
    """(a wrong gradient, what was done) of a right one."""
    arrays = leaves(g)
    i = int(rng.integers(len(arrays)))
    a, kind = arrays[i], int(rng.integers(6))
    scale = np.abs(a).max()
    if kind == 0:
        new, text = a * 1.01, "1.01 times"
    elif kind == 1:
        new, text = 0 * a, "0"
    elif kind == 2:
        new, text = -a, "the sign"
    elif kind == 3:
        new, text = a.copy(), "an entry"
        new[np.unravel_index(np.abs(a).argmax(), a.shape)] *= 1.2
    elif kind == 4:
        new, text = a + 0.1 * scale * rng.standard_normal(a.shape), "noise that stays"
    else:
        new, text = a[::-1] + 0.05 * scale, "reversed"
    left = iter([*arrays[:i], new, *arrays[i + 1 :]])
    return tree_map(lambda _: next(left), g), text, float(np.abs(new - a).max())
