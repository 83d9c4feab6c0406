"""Which update rules one kernel can run, and their numbers there.

SGD, Adam and AdamW, and any of these behind a clipping by the norm of all parameters.
The other rules run step by step.
"""

import numpy as np

from refmaml import update_rules as rules
from refmaml.kernels.whole_net import rule_numbers as at
from refmaml.kernels.whole_net.rule_numbers import NO_RULE, UpdateRule
from refmaml.update_rules.clip import NORM_EPS


def in_one_kernel(loop):
    """The UpdateRule of an inner loop's rule for the kernel; None where it has none."""
    rule, limit, steps = loop.rule, 0.0, loop.inner_steps
    if rule.plain:
        return NO_RULE
    if type(rule) is rules.Clip:
        everything = loop.adapts == ("*",) and not loop.frozen  # the kernel has no mask
        if rule.norm is None or rule.per_tensor or not everything:
            return None
        rule, limit = rule.rule, rule.norm
    numbers = np.zeros((steps, at.COLUMNS))
    numbers[:, [at.ONE, at.NORM_LIMIT, at.NORM_EPS]] = 1, limit, NORM_EPS
    if type(rule) in (rules.SGD, rules.UpdateRule):
        return UpdateRule(at.SGD, sgd_numbers(numbers, rule))
    if type(rule) in (rules.Adam, rules.AdamW):
        return UpdateRule(at.ADAM, adam_numbers(numbers, rule))
    return None


def sgd_numbers(numbers, rule):
    """The columns of SGD: without momentum m' = h and d = m'."""
    rule = rules.SGD() if type(rule) is rules.UpdateRule else rule
    mu, nesterov = rule.momentum, rule.nesterov
    numbers[:, [at.MU, at.DECAY]] = mu, rule.weight_decay
    numbers[:, [at.WH, at.WM]] = (1, mu) if nesterov else (0, 1)
    for k, row in enumerate(numbers):
        row[at.F] = rule.factors(k + 1)[0] if mu else 1
    return numbers


def adam_numbers(numbers, rule):
    """The columns of Adam and AdamW."""
    b1, b2 = rule.betas
    columns = [at.B1, at.N_B1, at.B2, at.N_B2, at.NN_B2, at.EPS, at.ROOT]
    numbers[:, columns] = b1, 1 - b1, b2, 1 - b2, 2 * (1 - b2), rule.eps, rule.eps_root
    numbers[:, at.DECOUPLED if rule.decoupled else at.DECAY] = rule.weight_decay
    for k, row in enumerate(numbers):
        row[[at.C1, at.C2]] = rule.factors(k + 1)
    return numbers


def adam_of_reptile(method, n=None):
    """The UpdateRule of Reptile's Adam. n: from which `n` starts if it is carried."""
    numbers, beta2 = np.zeros((method.inner_steps, at.COLUMNS)), method.beta2
    columns, carried = [at.ONE, at.N_B1, at.B2, at.N_B2, at.C1, at.EPS], n is not None
    numbers[:, columns] = 1, 1, beta2, 1 - beta2, 1, method.eps
    for k, row in enumerate(numbers):
        n = beta2 * n + (1 - beta2) if carried else 1 - beta2 ** (k + 1)
        row[at.C2] = n
    return UpdateRule(at.ADAM, numbers)
