"""Inner steps as peers write them: on parameters by name, in a library's primitives.

Plain gradient descent, SGD with momentum, and Adam; autodiff differentiates through
them. The formulas are those of refmaml/update_rules, written again.
"""

from refmaml.update_rules import SGD, Adam


def first_state(rule, phi):
    """The state before the first step: {name: zeros} for each of the rule's moments."""
    count = 2 if isinstance(rule, Adam) else 0 if rule.plain else 1
    return tuple({name: 0 * a for name, a in phi.items()} for _ in range(count))


def inner_step(rule, lr, phi, g, state, t, sqrt):
    """(phi, state) after step t = 1, 2, ...; phi and g are arrays by name.

    sqrt  the library's
    Raises TypeError for a rule that has no formula here.
    """
    if rule.plain:
        return {name: a - lr * g[name] for name, a in phi.items()}, state
    if isinstance(rule, Adam):
        return adam_step(rule, lr, phi, g, state, t, sqrt)
    if isinstance(rule, SGD) and not (rule.dampening or rule.nesterov or rule.weight_decay):
        (m,) = state
        m = {name: rule.momentum * m[name] + g[name] for name in phi}
        return {name: a - lr * m[name] for name, a in phi.items()}, (m,)
    raise TypeError(f"no formula for {rule}")


def adam_step(rule, lr, phi, g, state, t, sqrt):
    """(phi, (m, v)) after step t of Adam without weight decay."""
    (m, v), (b1, b2) = state, rule.betas
    m = {name: b1 * m[name] + (1 - b1) * g[name] for name in phi}
    v = {name: b2 * v[name] + (1 - b2) * g[name] * g[name] for name in phi}
    c1, c2 = 1 - b1**t, 1 - b2**t
    after = {
        name: a - lr * (m[name] / c1) / (sqrt(v[name] / c2 + rule.eps_root) + rule.eps)
        for name, a in phi.items()
    }
    return after, (m, v)
