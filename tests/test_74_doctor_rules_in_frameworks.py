"""Right inner loops with an update rule, in PyTorch and in JAX: the doctor calls them
right in both precisions, and the same code with one derivative cut off wrong, by name.
"""

from typing import Any, NamedTuple

import pytest
from implementations import average, tasks

import refmaml as rm


class Framework(NamedTuple):
    """What the inner loops below need of PyTorch or JAX.

    stop   a value without its derivatives
    inner  (loss(phi), phi) -> its gradient by name, which can be differentiated
    outer  loss(theta, *task) -> the function (theta, *task) -> its gradient by name
    """

    sqrt: Any
    where: Any
    stop: Any
    inner: Any
    outer: Any


def torch_framework():
    import torch

    def inner(loss, phi):
        found = torch.autograd.grad(loss(phi), list(phi.values()), create_graph=True)
        return dict(zip(phi, found, strict=True))

    def outer(loss):
        def gradient(theta, *task):
            theta = {n: p.clone().requires_grad_() for n, p in theta.items()}
            found = torch.autograd.grad(loss(theta, *task), list(theta.values()))
            return dict(zip(theta, found, strict=True))

        return gradient

    return Framework(torch.sqrt, torch.where, torch.Tensor.detach, inner, outer)


def jax_framework():
    import jax
    import jax.numpy as jnp

    def inner(loss, phi):
        return jax.grad(loss)(phi)

    def outer(loss):
        return jax.jit(jax.grad(loss))

    return Framework(jnp.sqrt, jnp.where, jax.lax.stop_gradient, inner, outer)


FRAMEWORKS = {"torch": torch_framework, "jax": jax_framework}


# ---- rules: (framework, phi, gradient, state, number of the step) -> step, state -----


def momentum(f, phi, g, buffer, t, cut=False):
    """torch.optim.SGD(momentum=0.9, weight_decay=5e-4); cut: the buffer is detached."""
    h = {n: g[n] + 5e-4 * phi[n] for n in g}
    if buffer is None:
        return h, h
    buffer = {n: f.stop(b) for n, b in buffer.items()} if cut else buffer
    buffer = {n: 0.9 * buffer[n] + h[n] for n in g}
    return buffer, buffer


def adam(f, phi, g, state, t, cut=False):
    """Adam with eps = eps_root = 1e-8; cut: the denominator is a constant."""
    m, v = state or ({n: 0.0 for n in g}, {n: 0.0 for n in g})
    m = {n: 0.9 * m[n] + 0.1 * g[n] for n in g}
    v = {n: 0.999 * v[n] + 0.001 * (f.stop(g[n]) if cut else g[n]) ** 2 for n in g}
    root = {n: f.sqrt(v[n] / (1 - 0.999**t) + 1e-8) for n in g}
    return {n: m[n] / (1 - 0.9**t) / (root[n] + 1e-8) for n in g}, (m, v)


def clipping(f, phi, g, state, t, cut=False):
    """torch.nn.utils.clip_grad_norm_ to 0.2; cut: its factor is a constant."""
    norm = f.sqrt(sum((a * a).sum() for a in g.values()))
    factor = f.where(norm + 1e-6 > 0.2, 0.2 / (norm + 1e-6), 1.0)
    factor = f.stop(factor) if cut else factor
    return {n: factor * a for n, a in g.items()}, None


def maml(rule, cut=False):
    """fn(problem, params, batch): MAML by the framework, with a rule inside."""

    def fn(problem, params, batch):
        f, method = FRAMEWORKS[problem.framework](), problem.method

        def after(theta, xs, ys, xq, yq):
            phi, state = theta, None
            for t in range(1, method.inner_steps + 1):
                g = f.inner(lambda w: problem.loss(w, xs, ys), phi)
                step, state = rule(f, phi, g, state, t, cut)
                phi = {n: phi[n] - method.inner_lr * step[n] for n in phi}
            return problem.loss(phi, xq, yq)

        gradient = f.outer(after)
        return average([gradient(params, *task) for task in tasks(batch)])

    return fn


# ---- verdicts ------------------------------------------------------------------------

RULES = {
    "momentum and decay": (momentum, rm.SGD(momentum=0.9, weight_decay=5e-4)),
    "adam with eps_root": (adam, rm.Adam(eps_root=1e-8)),
    "clipping": (clipping, rm.Clip(rm.SGD(), norm=0.2)),
}
CUT = {
    "momentum and decay": "the state of SGD is detached",
    "adam with eps_root": "the second moment of Adam is detached",
    "clipping": "the clipping factor is not differentiated",
}
# JAX compiles each case for itself, which takes seconds.
PROBES = {"torch": ("quadratic", "two-layer", "mlp", "conv"), "jax": ("quadratic", "mlp")}
IN_BOTH = [
    pytest.param(
        name, framework, marks=pytest.mark.frameworks(framework), id=f"{name}, {framework}"
    )
    for name in RULES
    for framework in FRAMEWORKS
]


def checked(fn, rule, framework, **options):
    given = {"framework": framework, "repeats": 0, "probes": ("quadratic", "mlp")} | options
    return rm.check_meta_gradient(fn, rm.MAML(0.1, 3, rule=rule), **given)


@pytest.mark.parametrize("name, framework", IN_BOTH)
def test_right_code_with_an_update_rule_is_called_right(name, framework):
    code, rule = RULES[name]
    probes = PROBES[framework]
    report = checked(maml(code), rule, framework, probes=probes)
    assert report.ok and len(report.results) == 2 * len(probes), str(report)
    assert all(result.misfit <= 0.5 for result in report.results), str(report)
    assert not any("convention" in remark for remark in report.remarks), str(report)


@pytest.mark.parametrize("name, framework", IN_BOTH)
def test_the_same_code_with_a_derivative_cut_off_is_wrong_and_named(name, framework):
    code, rule = RULES[name]
    report = checked(maml(code, cut=True), rule, framework, precision="float64")
    assert report.verdict == "wrong" and CUT[name] in report.diagnosis, str(report)


@pytest.mark.frameworks("jax", "optax")
@pytest.mark.parametrize("name", RULES)
def test_the_same_rules_of_optax_are_called_right(name):
    """optax clips by limit / norm, without PyTorch's 1e-6: a convention."""
    import optax

    own = {
        "momentum and decay": [optax.add_decayed_weights(5e-4), optax.trace(0.9)],
        "adam with eps_root": [optax.scale_by_adam(eps_root=1e-8)],
        "clipping": [optax.clip_by_global_norm(0.2)],
    }
    chain = optax.chain(*own[name])

    def by_optax(f, phi, g, state, t, cut):
        return chain.update(g, chain.init(phi) if state is None else state, phi)

    report = checked(maml(by_optax), RULES[name][1], "jax", precision="float64")
    assert report.ok, str(report)
    said = any("a convention, no mistake" in remark for remark in report.remarks)
    assert said == (name == "clipping"), str(report)
