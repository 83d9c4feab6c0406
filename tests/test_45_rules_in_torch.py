"""Update rules against PyTorch: autograd through the same rule, and torch.optim."""

import numpy as np
import pytest
from modern_net import modern_case

import refmaml as rm
from refmaml.oracles import cases, rule_checks
from refmaml.oracles.method_checks import rule_text
from refmaml.oracles.tolerance import relative_error

pytestmark = pytest.mark.frameworks("torch")


def small_case():
    """(net, theta, batch): two linear layers with tanh between them."""
    layers = [rm.Linear(4, 6), rm.Tanh(), rm.Linear(6, 3)]
    net, rng = rm.Sequential(layers, rm.CrossEntropy(), (4,)), np.random.default_rng(0)
    return net, cases.start(net, rng), cases.tasks_for(net, rng)


def fields_of(rule):
    return {name: getattr(rule, name) for name in rule.__dataclass_fields__}


def step_of(rule):
    """The rule as a step of a loop in PyTorch."""
    import rules_in_torch as t

    own = fields_of(rule)
    if isinstance(rule, rm.Clip):
        return t.clip(step_of(own.pop("rule")), **own)
    if isinstance(rule, rm.Adam):
        return t.adam(**own, decoupled=isinstance(rule, rm.AdamW))
    steps = {rm.SGD: t.sgd, rm.RMSprop: t.rmsprop, rm.Adagrad: t.adagrad, rm.Sign: t.sign}
    return steps[type(rule)](**own) if type(rule) in steps else t.plain


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=rule_text)
def test_a_meta_gradient_is_autograd_s_through_the_same_rule(rule):
    from rules_in_torch import meta_gradient

    net, theta, batch = small_case()
    method = rm.MAML((0.05, 0.03, 0.04), 3, rule=rule, anchor=0.3, inner_batch=4)
    out = method.meta_gradient(net, theta, batch)
    sets = method.mini_batches(6)
    truth = meta_gradient(net, theta, batch, step_of(rule), method.inner_lr, 3, 0.3, sets)
    assert relative_error(out.grad, truth) < 1e-11


@pytest.mark.parametrize("rule", rule_checks.RULES, ids=rule_text)
def test_five_steps_on_a_net_with_group_norm_gelu_and_a_residual_block(rule):
    from rules_in_torch import meta_gradient

    net, theta, batch = modern_case()
    out = rm.MAML(0.05, 5, rule=rule).meta_gradient(net, theta, batch)
    truth = meta_gradient(net, theta, batch, step_of(rule), 0.05, 5)
    assert relative_error(out.grad, truth) < 1e-11


# ---- torch.optim itself --------------------------------------------------------------

FORWARD = [
    rm.SGD(),
    rm.SGD(momentum=0.9),
    rm.SGD(0.9, 0.2, weight_decay=0.05),
    rm.SGD(0.8, nesterov=True, weight_decay=0.03),
    rm.Adam(),
    rm.Adam((0.8, 0.95), 1e-3, weight_decay=0.05),
    rm.AdamW(),
    rm.AdamW((0.8, 0.95), 1e-3, weight_decay=0.1),
    rm.RMSprop(),
    rm.RMSprop(0.9, 1e-3, weight_decay=0.02, momentum=0.7, centered=True),
    rm.Adagrad(),
    rm.Adagrad(0.1, 0.02, 0.1, 1e-3),
    rm.Clip(rm.SGD(momentum=0.9, weight_decay=0.1), norm=0.2),
    rm.Clip(rm.Adam(), norm=0.05, per_tensor=True),
    rm.Clip(rm.RMSprop(), value=0.05),
]


def steps_of_torch(rule, net, theta, x, y, lr, K):
    """phi_K (P,) of one task by the classes of torch.optim and torch.nn.utils."""
    import rules_in_torch as t
    import torch

    f, w = t.framework(), torch.tensor(theta, dtype=torch.float64)
    parameters = [a.clone().requires_grad_() for a in t.named(net, w).values()]
    clip = rule if isinstance(rule, rm.Clip) else None
    inner = rule.rule if clip else rule
    own = {n: v for n, v in fields_of(inner).items() if n != "eps_root"}
    optimizer = getattr(torch.optim, type(inner).__name__)(parameters, lr=lr, **own)
    groups = [[p] for p in parameters] if clip and clip.per_tensor else [parameters]
    for _ in range(K):
        optimizer.zero_grad()
        t.task_loss(f, net, torch.cat(parameters), *map(torch.from_numpy, (x, y))).backward()
        for group in groups if clip else ():
            if clip.norm is not None:
                torch.nn.utils.clip_grad_norm_(group, clip.norm)
            else:
                torch.nn.utils.clip_grad_value_(group, clip.value)
        optimizer.step()
    return torch.cat(parameters).detach().numpy()


@pytest.mark.parametrize("rule", FORWARD, ids=rule_text)
def test_adapted_parameters_are_those_of_torch_optim(rule):
    net, theta, batch = small_case()
    phi = rm.MAML(0.05, 5, rule=rule).adapt(net, theta, batch.x_support, batch.y_support)
    tasks = zip(batch.x_support, batch.y_support, strict=True)
    truth = np.array([steps_of_torch(rule, net, theta, x, y, 0.05, 5) for x, y in tasks])
    assert relative_error(phi - theta, truth - theta) < 1e-12


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_names_and_defaults_are_those_of_torch_optim(name):
    from inspect import signature

    import torch

    theirs = signature(getattr(torch.optim, name)).parameters
    for field, value in fields_of(getattr(rm, name)()).items():
        if field != "eps_root":
            assert theirs[field].default == value, field
