"""The ladder in order, rung by rung; `refmaml verify` prints what it yields."""

import numpy as np

from refmaml import kernels as kernel_sets
from refmaml.autodiff import jax_autodiff, torch_autodiff
from refmaml.oracles import cases, net_checks, unrolled
from refmaml.oracles.closed_form_checks import closed_form_checks
from refmaml.oracles.kernel_checks import kernel_checks
from refmaml.oracles.layer_checks import layer_checks, loss_checks
from refmaml.oracles.tolerance import Check


def layers(kernels):
    """Rungs 1 to 3 for every layer, with weights of their own for each task and with shared ones, and every loss."""
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
        yield from net_checks.network_checks(net.with_kernels(kernels), name)


def methods(kernels):
    """Rung 4 for every method, and that its check of MAML refuses what is wrong."""
    for number, (method, context) in enumerate(cases.methods()):
        net = cases.conv_net(context).with_kernels(kernels)
        theta, batch, margin = cases.method_case(net, unrolled.fixed_rates(net, method))
        meta = method.init(net, theta)
        truth = net_checks.truth_by_steps(method, net, meta, batch)
        yield net_checks.meta_gradient_check(method, net, meta, batch, truth, margin)
        if number == 0:
            yield from planted(method, net, theta, batch, truth, margin)


def planted(method, net, theta, batch, truth, margin):
    """Wrong meta-gradients: each row passes when the check of the method did not, by a factor of a thousand at least."""
    for name, check in net_checks.planted_errors(method, net, theta, batch, truth).items():
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
    """iMAML on both oracles, Reptile stepped by hand, and values that need no derivative."""
    net, rng = cases.smooth_net().with_kernels(kernels), np.random.default_rng(0)
    theta, batch = cases.start(net, rng), cases.tasks_for(net, rng)
    for method in cases.converged_imaml():
        yield net_checks.meta_gradient_check(method, net, theta, batch)
        yield net_checks.imaml_dense_check(method, net, theta, batch)
    for method in cases.reptiles():
        yield net_checks.reptile_check(method, net, theta, batch)
    maml = cases.methods()[0][0]
    yield net_checks.finite_difference_check(maml, net, theta, batch)
    yield net_checks.precision_check(maml, net, theta, batch)


def autodiff():
    """(name, function) of each autodiff library that is installed."""
    libraries = [
        ("torch", torch_autodiff, torch_autodiff.torch_meta_gradient),
        ("jax", jax_autodiff, jax_autodiff.jax_meta_gradient),
    ]
    return [(name, function) for name, module, function in libraries if module.missing() is None]


def autodiff_cases():
    """MAML and first-order MAML on nets that autodiff libraries are asked about: (method, net, theta, batch)."""
    for context in (False, True):
        net = cases.conv_net(context)
        for method in (
            cases.methods(inner_steps=3)[0][0],
            cases.first_order_of(cases.methods(inner_steps=3)[0][0]),
        ):
            theta, batch, _ = cases.method_case(net, unrolled.fixed_rates(net, method))
            yield method, net, theta, batch


def ladder(kernels, whole=True):
    """Every check in order, as (section, iterator of Check). `kernels`: the set to verify; its derivatives are proven on the
    reference set, and where it is another one, rung 7 holds it against that. whole=False: rung 7 alone."""
    reference = kernel_sets.reference()
    if whole:
        yield from on_reference(reference)
    if kernels.name != reference.name:
        yield f"kernels: {kernels.name}", kernel_checks(kernels, reference)


def on_reference(reference):
    """Rungs 1 to 6: what needs no other kernels than the reference ones."""
    yield "layers and losses", layers(reference)
    yield "nets", nets(reference)
    yield "methods", methods(reference)
    yield "implicit and first-order methods", implicit(reference)
    yield "closed forms", iter(closed_form_checks())
    for name, meta_gradient in autodiff():
        yield (
            f"autodiff in float64: {name}",
            (net_checks.autodiff_check(name, meta_gradient, *case) for case in autodiff_cases()),
        )
