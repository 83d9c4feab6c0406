"""What the page docs/pages/first_order.html must compute, by refmaml."""

import numpy as np

import refmaml as rm
from refmaml.oracles.tolerance import tolerance

NAME = "first_order"
SETTINGS = [{}, {"alpha": 0.1, "steps": 4, "steep": 2.2}, {"alpha": 0.8, "steps": 3, "steep": 4}]


def refmaml_methods(alpha, steps):
    strength = 1 / (alpha * steps)
    return {
        "maml": rm.MAML(alpha, steps),
        "fomaml": rm.FirstOrderMAML(alpha, steps),
        "reptile": rm.Reptile(alpha, steps),
        # Newton's method is exact on a quadratic; CG needs two iterations in a plane.
        "imaml": rm.IMAML(strength, 3, solver="newton_cg", cg_steps=6, cg_tol=1e-15),
    }


def tolerances(numbers):
    """(relative error allowed after K steps, after an outer path).

    A step multiplies rounding errors by |1 - alpha s| at most, and each of its entries
    has some 6 terms. Conjugate gradients on a condition number up to 1 + alpha K s add
    that factor.
    """
    growth = max(1, abs(1 - numbers["alpha"] * numbers["steep"])) ** (2 * numbers["steps"])
    condition = 1 + numbers["alpha"] * numbers["steps"] * numbers["steep"]
    return growth * condition * tolerance(float, 6 * 2 * numbers["steps"] + 6)


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    A, c = (np.array(numbers[key]) for key in ("hessians", "centres"))
    net, batch = rm.Quadratic(2), rm.Batch(A, c, A, c)
    alpha, steps, allowed = numbers["alpha"], numbers["steps"], tolerances(numbers)
    methods, theta = refmaml_methods(alpha, steps), np.array(numbers["theta"])

    def one(quantity, value, expected):
        return quantity, value, expected, allowed * np.abs(expected).max()

    trace = methods["maml"].meta_gradient(net, theta, batch, trace=True).trace
    phi = [np.broadcast_to(p, (2, 2)) for p in trace["phi"]]
    yield one("phi", numbers["paths"], np.array(phi).swapaxes(0, 1))
    lam = np.array(trace["lam"])  # lam_0 .. lam_K or backwards: the query gradient is last
    lam = lam if np.allclose(lam[-1], net.gradient(phi[-1], A, c)) else lam[::-1]
    yield one("lam", numbers["lam"], lam.swapaxes(0, 1))
    for name, method in methods.items():
        direction = method.meta_gradient(net, theta, batch).grad
        yield one(name, numbers["directions"][name], direction)
        yield one(f"{name}_x", numbers["shown"][f"{name}_x"], direction[0])
        yield one(f"{name}_y", numbers["shown"][f"{name}_y"], direction[1])
        yield from outer_path(name, numbers, net, batch, methods, one)
    yield from angles(numbers)
    yield one("factor", numbers["shown"]["factor"], (1 - alpha * numbers["steep"]) ** steps)


def outer_path(name, numbers, net, batch, methods, one):
    """Each of some outer steps from the page's own theta, and M there."""
    path, losses = np.array(numbers["descents"][name]), numbers["losses"][name]
    rate = numbers["outer"]
    if name == "reptile":
        rate /= numbers["alpha"] * numbers["steps"]
    for step in {0, 1, 7, 31, 59} & set(range(len(path) - 1)):
        after = path[step] - rate * methods[name].meta_gradient(net, path[step], batch).grad
        yield one(f"{name}: outer step {step}", path[step + 1], after)
        phi = methods["maml"].adapt(net, path[step], batch.x_support, batch.y_support)
        loss = net.loss(phi, batch.x_query, batch.y_query).mean()
        yield one(f"{name}: M at {step}", losses[step], loss)


def angles(numbers):
    """The angles to MAML's direction; an error e of a cosine is sqrt(2 e) at most."""
    maml = np.array(numbers["directions"]["maml"])
    for name in ("fomaml", "reptile", "imaml"):
        other = np.array(numbers["directions"][name])
        cosine = other @ maml / np.linalg.norm(other) / np.linalg.norm(maml)
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        allowed = np.degrees(np.sqrt(2 * tolerance(float, 6)))
        yield f"{name}: angle", numbers["shown"][f"{name}_angle"], angle, allowed


PLANTED = {
    "the Hessian's term dropped": ("-alpha, task.hvp(path[k], lam[k + 1])", "0, lam[k + 1]"),
    "one factor for all steps": ("k >= 0; k--) lam[k] =", "k >= 0; k--) lam[k] = k ? lam[k + 1] :"),
    "the Hessian doubled": ("hvp: (w, v) => times(A, v)", "hvp: (w, v) => scaled(2, times(A, v))"),
    "iMAML's penalty halved": ("theta, 1 / (alpha * K)).u", "theta, 0.5 / (alpha * K)).u"),
}
DRAGS = {
    "handle-theta": (80, 40, "theta"),
    "handle-first": (50, -30, "centres"),
    "handle-second": (-60, 20, "centres"),
}
KEYS = {
    ("handle-theta", "ARROW_UP"): ("theta", [0, 0.05]),
    ("handle-second", "ARROW_LEFT"): ("second", [-0.05, 0]),
    ("range-steps", "ARROW_RIGHT"): ("steps", 1),
}
