"""sigmoid(x) and log(1 + e^x) for layers that are written with k.xp alone."""


def sigmoid(xp, x):
    """1 / (1 + e^-x), by the exponential that does not overflow."""
    u = decay(xp, x)
    return xp.where(x.real > 0, 1, u) / (1 + u)


def softplus(xp, x):
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    return xp.where(x.real > 0, x, 0) + xp.log1p(decay(xp, x))


def decay(xp, x):
    """e^-|x|, the sign being that of the real part."""
    return xp.exp(xp.where(x.real > 0, -x, x))
