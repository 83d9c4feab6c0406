"""Arithmetic on {name: array}, and what the drawn functions read of a problem."""

STEP = "inner_lr."  # what the names of learned step sizes begin with


def mapped(f, *trees):
    return {n: f(*(t[n] for t in trees)) for n in trees[0]}


def dot(a, b):
    return sum((a[n] * b[n]).sum() for n in a)


def moved(phi, alpha, d):
    """phi - alpha d; alpha a number or {name: array}."""
    return {n: phi[n] - (alpha[n] if isinstance(alpha, dict) else alpha) * d[n] for n in phi}


def added(a, c, b):
    """a + c b."""
    return {n: a[n] + c * b[n] for n in a}


def split(params):
    """(theta, learned step sizes) by name."""
    theta = {n: a for n, a in params.items() if not n.startswith(STEP)}
    return theta, {n[len(STEP) :]: a for n, a in params.items() if n.startswith(STEP)}


def tasks_of(batch):
    return list(zip(batch.x_support, batch.y_support, batch.x_query, batch.y_query, strict=True))


def adapting(problem, lib, like):
    """{name: 1 or 0 in the array's shape}: what adapts."""
    net, method = problem.net, problem.method
    mask = net.mask(method.adapts)
    mask = (mask & ~net.mask(method.frozen) if method.frozen else mask).astype(float)
    return {n: lib.stopped(like[n]) * 0 + float(a.flat[0]) for n, a in net.named(mask).items()}
