"""Oracle: inner steps by the formulas in the documentation of torch.optim.

They are written out again, in any arithmetic, and share no code with
refmaml.update_rules. A hyperparameter may be a column (B, 1), a value for each row of
phi: then one loop differentiates in every hyperparameter by the complex step.

A formula has the arguments (rule, net, phi, g, memory, t): phi, g (B, P), t = 1, 2, ..
the number of the step. It returns what the step size multiplies, and keeps what it
needs in the next step in the dict `memory`, which is empty at first.
A rule of another class takes its own `direction`.
"""

from copy import copy
from dataclasses import fields

import numpy as np

from refmaml.arguments import is_number
from refmaml.update_rules import SGD, Adagrad, Adam, AdamW, Clip, RMSprop, Sign, UpdateRule


def direction(rule, net, phi, g, memory, t):
    """What the step size multiplies in step t."""
    kind = next(cls for cls in type(rule).__mro__ if cls in FORMULAS)
    own = kind is UpdateRule and type(rule) is not UpdateRule
    return (by_itself if own else FORMULAS[kind])(rule, net, phi, g, memory, t)


def by_itself(rule, net, phi, g, memory, t):
    """A rule without a formula here: its own `direction`."""
    state = memory.get("state", rule.init(phi))
    d, memory["state"] = rule.direction(net, phi, g, state, rule.factors(t))
    return d


def gradient_descent(rule, net, phi, g, memory, t):
    """The gradient itself."""
    return g


def signs(rule, net, phi, g, memory, t):
    """The sign of the gradient, which has no derivative but 0."""
    return np.sign(g.real)


def sgd(rule, net, phi, g, memory, t):
    """torch.optim.SGD: b_1 = g_1, then b_t = momentum b_{t-1} + (1 - dampening) g_t."""
    g = g + rule.weight_decay * phi
    if not np.any(np.real(rule.momentum)):
        return g
    new = g if t == 1 else rule.momentum * memory["b"] + (1 - rule.dampening) * g
    memory["b"] = new
    return g + rule.momentum * new if rule.nesterov else new


def adam(rule, net, phi, g, memory, t):
    """torch.optim.Adam, with optax's eps_root: m^ / (sqrt(v^ + eps_root) + eps)."""
    return adam_of(rule, g + rule.weight_decay * phi, memory, t)


def adamw(rule, net, phi, g, memory, t):
    """torch.optim.AdamW: the decay is a step of its own."""
    return rule.weight_decay * phi + adam_of(rule, g, memory, t)


def adam_of(rule, g, memory, t):
    """Adam's quotient; the moments are sums over all gradients so far."""
    past = memory.setdefault("g", [])
    past.append(g)
    beta1, beta2 = rule.betas
    first = sum((1 - beta1) * beta1 ** (t - i) * a for i, a in enumerate(past, 1))
    second = sum((1 - beta2) * beta2 ** (t - i) * a**2 for i, a in enumerate(past, 1))
    root = np.sqrt(second / (1 - beta2**t) + rule.eps_root)
    return first / (1 - beta1**t) / (root + rule.eps)


def rmsprop(rule, net, phi, g, memory, t):
    """torch.optim.RMSprop; the averages are sums over all gradients so far."""
    past = memory.setdefault("g", [])
    past.append(g + rule.weight_decay * phi)
    weights = [(1 - rule.alpha) * rule.alpha ** (t - i) for i in range(1, t + 1)]
    square = sum(w * a**2 for w, a in zip(weights, past, strict=True))
    if rule.centered:
        square = square - sum(w * a for w, a in zip(weights, past, strict=True)) ** 2
    quotient = past[-1] / (np.sqrt(square + rule.eps_root) + rule.eps)
    if not np.any(np.real(rule.momentum)):
        return quotient
    memory["b"] = rule.momentum * memory.get("b", 0) + quotient
    return memory["b"]


def adagrad(rule, net, phi, g, memory, t):
    """torch.optim.Adagrad: the step size falls as 1 / (1 + (t - 1) lr_decay)."""
    g = g + rule.weight_decay * phi
    memory["sum"] = memory.get("sum", rule.initial_accumulator_value) + g**2
    root = np.sqrt(memory["sum"] + rule.eps_root)
    return g / (root + rule.eps) / (1 + (t - 1) * rule.lr_decay)


def clip(rule, net, phi, g, memory, t):
    """clip_grad_norm_ or clip_grad_value_ of torch.nn.utils, then the inner rule."""
    if rule.norm is not None:
        parts = net.blocks if rule.per_tensor else [slice(None)]
        g = np.concatenate([norm_clipped(g[:, part], rule.norm) for part in parts], axis=1)
    else:
        low, high = g.real < -np.real(rule.value), g.real > np.real(rule.value)
        g = np.where(high, rule.value, np.where(low, -rule.value, g))
    return direction(rule.rule, net, phi, g, memory, t)


def norm_clipped(g, limit):
    """g min(1, limit / (|g| + 1e-6)), row by row."""
    factor = limit / (np.sqrt((g**2).sum(axis=1, keepdims=True)) + 1e-6)
    return np.where(factor.real < 1, factor, 1) * g


FORMULAS = {
    UpdateRule: gradient_descent,
    SGD: sgd,
    Adam: adam,
    AdamW: adamw,
    RMSprop: rmsprop,
    Adagrad: adagrad,
    Sign: signs,
    Clip: clip,
}


# ---- hyperparameters by name ---------------------------------------------------------


def own_numbers(rule):
    """{field: array} of a rule's own numbers."""
    values = {f.name: getattr(rule, f.name) for f in fields(rule)}
    return {name: np.array(v) for name, v in values.items() if is_number(v) or is_pair(v)}


def is_pair(value):
    """Whether a value is a tuple of numbers."""
    return isinstance(value, tuple) and bool(value) and all(map(is_number, value))


def rule_numbers(rule):
    """{name: array} of a rule's numbers and those of the rule that Clip holds.

    A name that Clip has too begins with "rule.".
    """
    own = own_numbers(rule)
    held = rule_numbers(rule.rule) if isinstance(rule, Clip) else {}
    return own | {held_name(name, own): a for name, a in held.items()}


def held_name(name, own):
    """The name of a number of the rule that Clip holds; own: Clip's own numbers."""
    return f"rule.{name}" if name.rpartition(".")[2] in own else name


def with_rule_numbers(rule, values):
    """A copy of the rule with some numbers replaced, unchecked; names as above."""
    new, own = copy(rule), own_numbers(rule)
    for name in own.keys() & values.keys():
        object.__setattr__(new, name, values[name])
    if isinstance(rule, Clip):
        held = {n.removeprefix("rule."): v for n, v in values.items() if n not in own}
        object.__setattr__(new, "rule", with_rule_numbers(rule.rule, held))
    return new


METHOD_NUMBERS = ("inner_lr", "anchor", "regularization")  # of all methods together


def hyperparameters(method):
    """{name: array () or (n,)}: what a method's `hyper` may name."""
    if hasattr(method, "regularization"):  # the steps do not move the solution
        return {"regularization": np.array(method.regularization)}
    names = [name for name in METHOD_NUMBERS if hasattr(method, name)]
    return {name: np.array(getattr(method, name)) for name in names} | rule_numbers(method.rule)


def with_hyperparameters(method, values):
    """A copy of the method with some hyperparameters replaced, unchecked."""
    new = copy(method)
    object.__setattr__(new, "rule", with_rule_numbers(method.rule, values))
    for name in set(METHOD_NUMBERS) & values.keys():
        object.__setattr__(new, name, values[name])
    return new
