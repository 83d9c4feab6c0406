"""The ladder in order, rung by rung. `refmaml verify` prints its checks."""

import numpy as np

from refmaml import kernels as kernel_sets
from refmaml.autodiff import jax_autodiff, torch_autodiff
from refmaml.methods import table_entry
from refmaml.oracles import cases, meta_objectives, method_checks
from refmaml.oracles.closed_form_checks import closed_form_checks
from refmaml.oracles.guarded import guarded
from refmaml.oracles.kernel_checks import kernel_checks
from refmaml.oracles.laplace_checks import laplace_checks
from refmaml.oracles.layer_checks import layer_checks, loss_checks
from refmaml.oracles.net_checks import network_checks
from refmaml.oracles.neural_process_checks import neural_process_checks
from refmaml.oracles.posterior_checks import posterior_checks
from refmaml.oracles.rl_checks import policy_checks
from refmaml.oracles.rule_checks import rule_checks
from refmaml.oracles.solved_head_checks import solved_head_checks
from refmaml.oracles.tolerance import Check
from refmaml.oracles.wrong_gradients import first_order_of, planted_errors


def layers(kernels):
    """Rungs 1 to 3 for every layer and every loss.

    A layer with parameters is checked with parameters per task and with shared ones.
    """
    for case in cases.LAYERS:
        yield from layer_checks(case, kernels)
        if case.layer.shapes():
            yield from layer_checks(case, kernels, shared=True)
    for loss in cases.LOSSES:
        yield from loss_checks(loss, kernels)


def nets(kernels):
    """Rungs 2, 3 and 5 for whole nets."""
    for name, net in (
        ("conv + batch-norm + ReLU + max-pool net", cases.conv_net()),
        ("the same with FiLM", cases.conv_net(True)),
        ("conv + batch-norm + tanh net", cases.smooth_net()),
    ):
        yield from network_checks(net.with_kernels(kernels), name)


def nets_without_weights_first(kernels):
    """Rungs 2 to 5 for nets with other layers before the first weight."""
    for name, net in cases.nets_without_weights_first().items():
        net = net.with_kernels(kernels)
        yield from guarded(name, network_checks, net, name, rung="2 backward")
        yield from guarded(name, maml_on_net, name, net, rung="4 meta-gradient")


def case_of(net, method):
    """(theta, batch, margin) with no kink near the inner loop of a method."""
    return cases.method_case(net, meta_objectives.fixed_rates(net, method), method=method)


def maml_on_net(name, net):
    """MAML's meta-gradient on a named net against the complex step."""
    method = cases.methods(inner_lr=0.1, inner_steps=2)[0][0]
    theta, batch, margin = case_of(net, method)
    check = method_checks.meta_gradient_check(method, net, theta, batch, margin=margin)
    return check._replace(subject=f"{name}: {check.subject}")


def methods(kernels):
    """Rung 4 for every method with a meta-objective.

    The check of MAML is checked too.
    """
    for number, (method, context) in enumerate(cases.methods()):
        net = cases.conv_net(context).with_kernels(kernels)
        theta, batch, margin = case_of(net, method)
        meta = method.init(net, theta)
        truth = method_checks.truth_by_steps(method, net, meta, batch)
        yield method_checks.meta_gradient_check(method, net, meta, batch, truth, margin)
        if number == 0:
            yield from planted(method, net, theta, batch, truth, margin)


def planted(method, net, theta, batch, truth, margin):
    """One row for each wrong gradient of MAML.

    A row passes if the check of the method fails, by a factor of at least a thousand.
    """
    for name, check in planted_errors(method, net, theta, batch, truth).items():
        yield Check(
            "4 planted error",
            f"{type(method).__name__}, {name}",
            "tolerance / its error",
            "must be refused",
            check.tolerance / check.error if check.error else np.inf,
            1e-3,
            margin,
        )


def implicit(kernels):
    """iMAML on two oracles, Reptile on its definition, two checks by values of M."""
    net, rng = cases.smooth_net().with_kernels(kernels), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    for method in cases.methods_with(table_entry.IMPLICIT):
        yield method_checks.meta_gradient_check(method, net, theta, batch)
        if hasattr(method, "regularization"):
            yield method_checks.imaml_dense_check(method, net, theta, batch)
    for method in cases.methods_with(table_entry.DAMPED):
        yield method_checks.released_dense_check(method, net, theta, batch)
    for method in cases.methods_with(table_entry.DISPLACEMENT):
        yield method_checks.displacement_check(method, net, theta, batch)
    maml = cases.methods()[0][0]
    yield method_checks.finite_difference_check(maml, net, theta, batch)
    yield method_checks.precision_check(maml, net, theta, batch)


def autodiff():
    """(name, function) of each autodiff library that is installed."""
    libraries = [
        ("torch", torch_autodiff, torch_autodiff.torch_meta_gradient),
        ("jax", jax_autodiff, jax_autodiff.jax_meta_gradient),
    ]
    return [(name, function) for name, module, function in libraries if module.missing() is None]


def autodiff_cases():
    """(method, net, theta, batch) for autodiff libraries: MAML and first-order MAML."""
    maml = cases.methods(inner_steps=3)[0][0]
    for context in (False, True):
        net = cases.conv_net(context)
        for method in (maml, first_order_of(maml)):
            theta, batch, _ = case_of(net, method)
            yield method, net, theta, batch


def ladder(kernels, whole=True):
    """Every check in order, as (section, iterator of Check).

    kernels  the set to verify. Rungs 1 to 6 run on the reference kernels; rung 7 checks
             another set against those
    whole    False: rung 7 only
    """
    reference = kernel_sets.reference()
    if whole:
        yield from on_reference(reference)
    if kernels.name != reference.name:
        yield f"kernels: {kernels.name}", kernel_checks(kernels, reference)


def on_reference(reference):
    """Rungs 1 to 6, which need the reference kernels only."""
    yield "layers and losses", layers(reference)
    yield "nets", nets(reference)
    yield "nets whose first layer has no weights", nets_without_weights_first(reference)
    yield "methods", methods(reference)
    yield "implicit and first-order methods", implicit(reference)
    yield "update rules and hypergradients", rule_checks(reference)
    yield "heads solved in closed form", solved_head_checks(reference)
    yield "early stopping and Laplace terms", laplace_checks(reference)
    yield "posteriors", posterior_checks()
    yield "conditional neural process", neural_process_checks(reference)
    yield "closed forms", iter(closed_form_checks())
    yield "meta-gradients of policies", policy_checks()
    for name, meta_gradient in autodiff():
        yield (
            f"autodiff in float64: {name}",
            (method_checks.autodiff_check(name, meta_gradient, *case) for case in autodiff_cases()),
        )
