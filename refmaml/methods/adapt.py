"""Adaptation as a method offers it to a caller."""


def adapt(method, net, meta, x, y):
    """Adapted parameters phi (T, P) for tasks with support sets x (T, N, ...), y (T, N, ...).

    meta (M,), as method.init made it; phi is an array of meta's kind.
    Raises ArgumentError, and NonFiniteError naming step, task and layer.
    """

    def work(net, meta, x, y):
        return [method.adapted(net, meta, x, y)], {}

    (phi,), _ = net.run(work, meta, x, y)
    return phi
