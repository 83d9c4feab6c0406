"""Rungs 4 and 7 for update rules, and rung 4 for hypergradients."""

import numpy as np

from refmaml.methods import ANIL, CAVIA, IMAML, MAML, MAMLPlusPlus, MetaSGD
from refmaml.oracles import cases, complex_step, inner_rules, meta_objectives
from refmaml.oracles.method_checks import describe, meta_gradient_check, method_terms
from refmaml.oracles.tolerance import Check, relative_error, tolerance
from refmaml.update_rules import SGD, Adagrad, Adam, AdamW, Clip, RMSprop, Sign, UpdateRule

# No eps is so small that a result hangs on a gradient's last bits: h / (|h| + eps) has
# slope 1 / eps at h = 0.
RULES = (
    UpdateRule(),
    Sign(),
    SGD(weight_decay=0.1),
    SGD(momentum=0.9),
    SGD(momentum=0.9, dampening=0.2, weight_decay=0.05),
    SGD(momentum=0.8, nesterov=True, weight_decay=0.03),
    Adam((0.9, 0.99), eps=0.01),
    Adam((0.8, 0.95), eps=0.01, eps_root=0.001, weight_decay=0.05),
    AdamW((0.8, 0.95), eps=0.01, eps_root=0.001, weight_decay=0.1),
    RMSprop(0.9, eps=0.01),
    RMSprop(0.9, eps=0.01, eps_root=0.01, weight_decay=0.02, momentum=0.7, centered=True),
    Adagrad(eps=0.01),
    Adagrad(0.1, 0.02, 0.1, eps=0.01, eps_root=0.001),
    Clip(SGD(momentum=0.9), norm=0.2),
    Clip(Adam((0.8, 0.95), eps=0.01), norm=0.1, per_tensor=True),
    Clip(SGD(weight_decay=0.1), value=0.05),
    Clip(Clip(SGD(momentum=0.5), norm=0.3), norm=0.2),
)
# What an inner loop has beside its rule, all at once.
SETTINGS = {"anchor": 0.3, "inner_batch": 4, "frozen": ("BatchNorm2d",)}
STEP_SIZES = (0.05, 0.03, 0.02, 0.04, 0.01)


def rule_methods():
    """MAML with each rule: five equal steps; and with SETTINGS and STEP_SIZES."""
    return [MAML(0.05, 5, rule=rule) for rule in RULES] + [
        MAML(STEP_SIZES, 5, rule=rule, **SETTINGS) for rule in RULES
    ]


def hyper_methods():
    """[(method, whether it needs a net with context)] with hypergradients."""
    rule = SGD(momentum=0.9, dampening=0.2, weight_decay=0.05)
    others = [kind(0.05, 3, rule=rule, anchor=0.3) for kind in (ANIL, MetaSGD, MAMLPlusPlus)]
    converged = IMAML(2.0, 40, 0.2, "newton_cg", cg_steps=100, cg_tol=1e-15)
    return [
        *((method, False) for method in (*rule_methods(), *others, converged)),
        (CAVIA(0.05, 3, rule=rule, anchor=0.3), True),
    ]


def smooth_case(context=False):
    """(net, theta, batch) without kinks."""
    net, rng = cases.smooth_net(context), np.random.default_rng(0)
    return net, cases.start(net, rng), cases.tasks_for(net, rng)


# ---- hypergradients ------------------------------------------------------------------


def hyper_truth(method, net, meta, batch):
    """{name: dM/d(hyperparameter)}, mean over tasks, by the oracle's own inner loop.

    All numbers of all hyperparameters are one vector; each row of a complex step
    shifts one of them.
    """
    numbers = inner_rules.hyperparameters(method)
    ends = np.cumsum([a.size for a in numbers.values()])
    parts = {n: slice(e - a.size, e) for (n, a), e in zip(numbers.items(), ends, strict=True)}

    def M(rows, task):
        columns = {n: rows[:, part].T[:, :, None] for n, part in parts.items()}
        values = {n: tuple(c) if numbers[n].ndim else c[0] for n, c in columns.items()}
        W = np.broadcast_to(meta, (len(rows), len(meta)))
        shifted = inner_rules.with_hyperparameters(method, values)
        return meta_objectives.meta_objective(net, shifted, task, W)

    at = np.concatenate([a.ravel() for a in numbers.values()])
    tasks = [batch[t : t + 1] for t in range(len(batch))]
    slopes = np.mean([complex_step.gradient(lambda r, t=t: M(r, t), at) for t in tasks], axis=0)
    return {n: slopes[part].reshape(numbers[n].shape) for n, part in parts.items()}


def hypergradient_checks(method, net, meta, batch, truth=None):
    """Rung 4: a Check for each hyperparameter on which M depends.

    truth  the result of `hyper_truth`; None: it is computed
    """
    truth = hyper_truth(method, net, meta, batch) if truth is None else truth
    hyper = method.meta_gradient(net, meta, batch, hyper=True).hyper
    limit = tolerance(float, method_terms(method, net, batch))
    betas = inner_rules.hyperparameters(method).get("betas", np.zeros(1))
    # 1 - beta^t has an error of eps / (1 - beta), and its derivative passes it on.
    limits = {"betas": limit / (1 - betas.max())}
    return [
        Check(
            "4 hypergradient",
            describe(method),
            f"dM/d({name})",
            "complex step",
            relative_error(hyper[name], value) if name in hyper else np.inf,
            limits.get(name, limit),
        )
        for name, value in truth.items()
        if name in hyper or value.any()
    ]


# ---- the sections of the ladder ------------------------------------------------------


def rule_checks(kernels):
    """Rung 4: every rule in MAML; hypergradients of every method that has them."""
    for method, context in hyper_methods():
        net, theta, batch = smooth_case(context)
        net = net.with_kernels(kernels)
        meta = method.init(net, theta)
        if not isinstance(method, IMAML):
            yield meta_gradient_check(method, net, meta, batch)
        yield from hypergradient_checks(method, net, meta, batch)
