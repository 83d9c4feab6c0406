"""A convolutional net in NumPy with its gradient by hand, and MAML on it with the
mistakes that occur in such code."""

import numpy as np

LR, STEPS = 0.3, 2


def forward(params, x):
    x = x[:, :, None] * params["conv"]["kernel"]  # a convolution of width 3 with one input
    x = np.tanh(x[:, :-2, 0] + x[:, 1:-1, 1] + x[:, 2:, 2] + params["conv"]["bias"])
    return x @ params["head"]["w"] + params["head"]["b"]


def loss(params, x, y):
    return ((forward(params, x) - y) ** 2).mean()


def gradient(params, x, y):
    """The gradient of `loss`, in its structure."""
    kernel, w = params["conv"]["kernel"], params["head"]["w"]
    s = x[:, :-2] * kernel[0] + x[:, 1:-1] * kernel[1] + x[:, 2:] * kernel[2]
    h = np.tanh(s + params["conv"]["bias"])
    dz = 2 * (h @ w + params["head"]["b"] - y) / y.size
    ds = (dz @ w.T) * (1 - h * h)
    parts = x[:, :-2], x[:, 1:-1], x[:, 2:]
    return {
        "conv": {
            "kernel": np.array([(ds * p).sum() for p in parts]),
            "bias": ds.sum(keepdims=True)[0],
        },
        "head": {"w": h.T @ dz, "b": dz.sum(0)},
    }


def example():
    """(params, batch) from a seed."""
    rng = np.random.default_rng(0)
    params = {
        "conv": {"kernel": rng.standard_normal(3), "bias": rng.standard_normal(1)},
        "head": {"w": rng.standard_normal((4, 2)), "b": rng.standard_normal(2)},
    }
    return params, tuple(
        rng.standard_normal((3, n, d)) for n, d in ((5, 6), (5, 2), (7, 6), (7, 2))
    )


def tree(function, *values):
    """function(*arrays) for the arrays of nested dicts."""
    if isinstance(values[0], dict):
        return {key: tree(function, *(v[key] for v in values)) for key in values[0]}
    return function(*values)


def product(params, v, x, y):
    """H v by a complex step of the gradient."""
    moved = tree(lambda p, a: p + 1e-30j * a, params, v)
    return tree(lambda a: a.imag / 1e-30, gradient(moved, x, y))


def maml(
    params, batch, curvature=1.0, lr=LR, steps=STEPS, at="previous", query_at=-1, back=None,
    sets=lambda s: s, tasks=lambda rows: rows, divide=True, stays=None,
):  # fmt: skip
    """MAML by hand, each keyword a place where code goes wrong."""
    four = list(zip(*batch, strict=True))
    rows = []
    for xs, ys, xq, yq in map(sets, four):
        rates = tree(lambda p: np.full(p.shape, lr), params)
        if stays:
            rates["head"][stays][:] = 0.0
        phis, points = [params], []
        for _ in range(steps):
            points.append(phis[0] if at == "start" else phis[-1])
            g = gradient(points[-1], xs, ys)
            phis.append(tree(lambda p, r, g: p - r * g, phis[-1], rates, g))
        lam = total = gradient(phis[query_at], xq, yq)
        for phi in points[::-1][: steps if back is None else back]:
            Hv = product(phi, tree(np.multiply, rates, total if at == "start" else lam), xs, ys)
            lam = tree(lambda a, h: (a - curvature * h).real.astype(np.float64), lam, Hv)
        rows.append(lam)
    chosen = tasks(rows)
    summed = tree(lambda *g: sum(g), *chosen)
    summed = tree(lambda a: a / len(four) if divide else a, summed)
    return tree(lambda a, p: a.astype(p.dtype), summed, params)


VARIANTS = {
    "first-order": ({"curvature": 0.0}, "first-order"),
    "Hessian twice": ({"curvature": 2.0}, "Hessian counts twice"),
    "Hessian half": ({"curvature": 0.5}, "Hessian counts half"),
    "Hessian's sign": ({"curvature": -1.0}, "Hessian has the wrong sign"),
    "last step": ({"back": 1}, "only the last 1 of the inner steps"),
    "query on support": ({"sets": lambda s: (*s[:2], *s[:2])}, "measured on the support set"),
    "inner on query": ({"sets": lambda s: (*s[2:], *s[2:])}, "adapts on the query set"),
    "swapped sets": ({"sets": lambda s: (*s[2:], *s[:2])}, "sets are swapped"),
    "first task": ({"tasks": lambda rows: rows[:1], "divide": False}, "only the first task"),
    "last task missing": ({"tasks": lambda rows: rows[:-1]}, "the last task is left out"),
    "sum over tasks": ({"divide": False}, "times B"),
    "one step too few": ({"steps": STEPS - 1}, "one inner step too few"),
    "one step too many": ({"steps": STEPS + 1}, "one inner step too many"),
    "gradient at the start": ({"at": "start"}, "takes the gradient at the initial"),
    "step twice": ({"lr": 2 * LR}, "step size is twice"),
    "ascent": ({"lr": -LR}, "ascends"),
    "inner sum": ({"lr": LR / 5}, "divided by the number of support examples"),
    "a bias stays": ({"stays": "b"}, "does not adapt head.b"),
    "a weight stays": ({"stays": "w"}, "does not adapt head.w"),
}
