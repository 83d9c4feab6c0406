"""Update rules of the inner loop, in PyTorch's conventions."""

from arithmetic import mapped


def direction(rule, phi, g, state, t, lib, detached=False):
    """d_k of an update rule, and its next state, in PyTorch's conventions."""
    kind = type(rule).__name__
    if kind == "UpdateRule":
        return g, state
    if kind == "Clip":
        norm = lib.sqrt(sum((a * a).sum() for a in g.values()))
        factor = rule.norm / (norm + 1e-6)
        factor = lib.stopped(factor) if detached else factor
        shorter = mapped(lambda a: a * factor, g) if float(lib.stopped(factor)) < 1 else g
        return direction(rule.rule, phi, shorter, state, t, lib)
    h = mapped(lambda a, p: a + rule.weight_decay * p, g, phi) if rule.weight_decay else g
    if kind == "SGD":
        if not rule.momentum:
            return h, state
        m = mapped(lambda b, a: rule.momentum * b + a, state["m"], h) if state else h
        state = {"m": mapped(lib.stopped, m) if detached else m}
        return (mapped(lambda a, b: a + rule.momentum * b, h, m) if rule.nesterov else m), state
    b1, b2 = rule.betas
    zero = mapped(lambda a: a * 0, h)
    m = mapped(lambda b, a: b1 * b + (1 - b1) * a, state.get("m", zero), h)
    v = mapped(lambda b, a: b2 * b + (1 - b2) * a * a, state.get("v", zero), h)
    kept = {"m": m, "v": v}
    if detached:
        kept = {n: mapped(lib.stopped, a) for n, a in kept.items()}
    c1, c2 = 1 - b1**t, 1 - b2**t
    d = mapped(lambda a, b: (a / c1) / (lib.sqrt(b / c2 + rule.eps_root) + rule.eps), m, v)
    return d, kept
