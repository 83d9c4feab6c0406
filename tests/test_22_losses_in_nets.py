"""Meta-gradients of nets with the losses of loss_cases.py, and the doctor on them."""

import numpy as np
import pytest
from loss_cases import AGREES, EACH, LOSSES, PRECISE, net_with

import refmaml as rm
from refmaml.doctor.conditioning import perturbed_probabilities
from refmaml.execution.fusion import plan
from refmaml.oracles import cases, meta_objectives, method_checks
from refmaml.oracles.tolerance import relative_error, tolerance

pytestmark = pytest.mark.slow

# ---- meta-gradients ------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_meta_gradient_agrees_with_the_complex_step(loss):
    rate = 0.3 if loss.reduction == "mean" else 0.02
    net, method = net_with(loss), rm.MAML(rate, 2)
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    assert method_checks.meta_gradient_check(method, net, theta, batch).error <= PRECISE


@pytest.mark.parametrize(
    "library", [pytest.param(name, marks=pytest.mark.frameworks(name)) for name in ("torch", "jax")]
)
@pytest.mark.parametrize("loss", EACH, ids=str)
def test_a_meta_gradient_agrees_with_autodiff(loss, library):
    from refmaml.autodiff import jax_autodiff, torch_autodiff

    oracle = {"torch": torch_autodiff.torch_meta_gradient, "jax": jax_autodiff.jax_meta_gradient}
    net = net_with(loss)
    theta, batch, _ = cases.method_case(net, [0.1] * 2)
    truth = oracle[library](net, theta, batch, 0.1, 2)
    assert relative_error(rm.MAML(0.1, 2).meta_gradient(net, theta, batch).grad, truth) <= AGREES


@pytest.mark.parametrize("loss", EACH, ids=str)
def test_a_net_on_the_cpu_kernels_runs_layer_by_layer_with_these_losses(loss):
    net = net_with(loss)
    theta, batch, _ = cases.method_case(net, [0.1] * 2)
    assert plan(net, (3,)) is None and plan(net.with_loss(rm.CrossEntropy()), (3,)) is not None
    ours, truth = (
        rm.MAML(0.1, 2).meta_gradient(n, theta, batch).grad for n in (net.with_kernels("cpu"), net)
    )
    assert relative_error(ours, truth) <= tolerance(float, 100)


# ---- the doctor ----------------------------------------------------------------------


@pytest.mark.parametrize("loss", EACH, ids=str)
def test_the_doctor_judges_meta_gradients_of_nets_with_these_losses(loss):
    layers = [rm.Linear(3, 6), rm.GELU(), rm.Dropout(0.3), rm.Linear(6, 4)]
    net, method = rm.Sequential(layers, loss, (3,)), rm.MAML(0.1, 2)

    def by(method):
        def function(params, batch):
            gradient = method.meta_gradient(net, net.flat(params), rm.Batch(*batch)).grad
            return net.named(gradient)

        return function

    assert rm.check_meta_gradient(by(method), method, net=net).ok
    wrong = rm.check_meta_gradient(by(rm.FirstOrderMAML(0.1, 2)), method, net=net)
    assert not wrong.ok and "first" in str(wrong)


def test_the_doctor_takes_binary_targets():
    """Targets of 0 and 1 are moved a little, and stay targets."""
    net = rm.Sequential([rm.Linear(3, 2)], rm.BCEWithLogits(), (3,))
    rng, method = np.random.default_rng(0), rm.MAML(0.1, 2)
    x, y = rng.standard_normal((2, 2, 6, 3)), rng.integers(0, 2, (2, 2, 6, 2)).astype(float)
    batch = rm.Batch(x[0], y[0], x[1], y[1])

    def function(params, batch):
        return net.named(method.meta_gradient(net, net.flat(params), rm.Batch(*batch)).grad)

    assert rm.check_meta_gradient(function, method, net=net, batch=batch).ok


def test_the_doctor_perturbs_probabilities_and_nothing_else_of_a_loss():
    net = net_with(EACH[3])
    theta, batch, _ = cases.method_case(net, [0.1] * 2)
    kept, moved = (perturbed_probabilities(net, f) for f in (np.copy, lambda p: 1.01 * p))
    rows = [rm.MAML(0.1, 2).meta_gradient(n, theta, batch).grad for n in (net, kept, moved)]
    assert np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[2])
