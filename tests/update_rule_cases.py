"""The nets, batches and names that several tests of update rules share."""

import numpy as np

import refmaml as rm
from refmaml.oracles import method_checks, rule_checks

PROMISE = 1e-12


def name_of(value):
    """The name of a rule or a method in a test's identifier."""
    if isinstance(value, rm.UpdateRule):
        return method_checks.rule_text(value)
    return method_checks.describe(value)


def case_of(method):
    """(net, meta, batch) without kinks; CAVIA gets a context."""
    net, theta, batch = rule_checks.smooth_case(isinstance(method, rm.CAVIA))
    return net, method.init(net, theta), batch


def check_of(method):
    return method_checks.meta_gradient_check(method, *case_of(method))


def quadratic(tasks=2, P=4, seed=0):
    """A quadratic with support and query sets, and theta: (net, theta, batch)."""
    rng = np.random.default_rng(seed)
    A, B = (m @ m.swapaxes(1, 2) / P for m in rng.standard_normal((2, tasks, P, P)))
    c, d = rng.standard_normal((2, tasks, P))
    return rm.Quadratic(P), rng.standard_normal(P), rm.Batch(A, c, B, d)
