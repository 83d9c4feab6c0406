"""What a hand-written iMAML and Reptile need of any library, on flat vectors.

    (I + H / lambda) u = b    by a fixed number of iterations of conjugate gradients

The operators +, -, *, / and @ are all that the vectors have to know. No iteration is
left out where a system is solved early: compiled code has a fixed number of them.
"""


def conjugate_gradients(product, b, iterations):
    """u after some iterations from 0; product(v) is A v."""
    u, r, p, rr = 0 * b, b, b, b @ b
    for _ in range(iterations):
        Ap = product(p)
        a = rr / (p @ Ap)
        u, r = u + a * p, r - a * Ap
        new = r @ r
        p, rr = r + new / rr * p, new
    return u


def proximal_step(method, phi, g, theta):
    """phi - alpha (g + lambda (phi - theta)); arrays, or dicts of them by name."""
    lr, strength = method.inner_lr, getattr(method, "regularization", 0)
    if not isinstance(phi, dict):
        return phi - lr * (g + strength * (phi - theta) if strength else g)
    return {name: proximal_step(method, a, g[name], theta[name]) for name, a in phi.items()}
