"""BOIL, T-Net, Warp-MAML and the bias transformation are MAML on a net and a choice of
what adapts. Each is compared with a version in plain NumPy (written_out_nets.py)."""

from typing import NamedTuple

import numpy as np
import pytest
from written_out_nets import loss_and_gradient, meta_loss

import refmaml as rm
from refmaml.oracles import complex_step
from refmaml.oracles.tolerance import relative_error

ALPHA, K = 0.3, 3
PRECISE = 1e-12
WRONG = 1e-3  # a wrong configuration is off by more than that


class Configuration(NamedTuple):
    """Layers of refmaml, the same in plain NumPy, what adapts, and wrong methods."""

    layers: list
    written: list
    adapts: tuple
    mistaken: list


def maml(*adapts, frozen=()):
    return rm.MAML(ALPHA, K, adapts=adapts or ("*",), frozen=frozen)


CONFIGURATIONS = {
    "BOIL": Configuration(
        [rm.Linear(2, 5), rm.Tanh(), rm.Linear(5, 3)],
        [("linear", 5, 2, True), ("tanh",), ("linear", 3, 5, True)],
        ("body",),
        [maml(), maml("head"), rm.FirstOrderMAML(ALPHA, K, adapts=("body",))],
    ),
    "T-Net": Configuration(
        [rm.Linear(2, 5), rm.Linear(5, 5, bias=False), rm.Tanh(),
         rm.Linear(5, 3), rm.Linear(3, 3, bias=False)],
        [("linear", 5, 2, True), ("linear", 5, 5, False), ("tanh",),
         ("linear", 3, 5, True), ("linear", 3, 3, False)],
        ("0.*", "3.*"),
        [maml(), maml("1.*", "4.*"), rm.FirstOrderMAML(ALPHA, K, adapts=("0.*", "3.*"))],
    ),
    "Warp-MAML": Configuration(
        [rm.Linear(2, 5), rm.Tanh(), rm.Linear(5, 5), rm.Tanh(), rm.Linear(5, 3)],
        [("linear", 5, 2, True), ("tanh",), ("linear", 5, 5, True), ("tanh",),
         ("linear", 3, 5, True)],
        ("0.*", "4.*"),
        [maml(), maml("2.*"), rm.FirstOrderMAML(ALPHA, K, adapts=("0.*", "4.*"))],
    ),
    "bias transformation": Configuration(
        [rm.Context(2), rm.Linear(4, 5), rm.Tanh(), rm.Linear(5, 3)],
        [("context", 2), ("linear", 5, 4, True), ("tanh",), ("linear", 3, 5, True)],
        ("*",),
        [maml("context"), maml(frozen=("context",)), rm.CAVIA(ALPHA, K)],
    ),
}  # fmt: skip


def case_of(name):
    """(Configuration, net, theta, batch): regression in two dimensions."""
    found, rng = CONFIGURATIONS[name], np.random.default_rng(0)
    net = rm.Sequential(found.layers, rm.MSE(), (2,))
    theta = 0.7 * rng.standard_normal(net.num_params)
    shapes = ((3, 5, 2), (3, 5, 3), (3, 4, 2), (3, 4, 3))
    return found, net, theta, rm.Batch(*(rng.standard_normal(s) for s in shapes))


def truth_of(name):
    """dM/dtheta by the complex step through the version in plain NumPy."""
    found, net, theta, batch = case_of(name)
    moves = net.mask(found.adapts).astype(float)

    def M(rows):
        return np.array([meta_loss(found.written, w, batch, ALPHA, K, moves) for w in rows])

    return M(theta[None])[0], complex_step.gradient(M, theta)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_is_its_version_written_out(name):
    found, net, theta, batch = case_of(name)
    out = maml(*found.adapts).meta_gradient(net, theta, batch)
    loss, grad = truth_of(name)
    assert abs(out.loss - loss) < 1e-14
    assert relative_error(out.grad, grad) < PRECISE


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_three_wrong_configurations_are_told_apart(name):
    found, net, theta, batch = case_of(name)
    grad = truth_of(name)[1]
    for method in found.mistaken:
        wrong = method.meta_gradient(net, theta, batch).grad
        assert relative_error(wrong, grad) > WRONG, method


def test_a_step_of_a_t_net_is_a_step_with_the_metric_of_its_own_matrix():
    """W' = W - alpha G; so T W' = T W - alpha T T' (dL/d(T W))."""
    _, net, theta, batch = case_of("T-Net")
    x, y = batch.x_support[:1], batch.y_support[:1]
    phi = rm.MAML(ALPHA, 1, adapts=("0.*", "3.*")).adapt(net, theta, x, y)[0]
    before, after = net.named(theta), net.named(phi)
    assert np.array_equal(after["1.weight"], before["1.weight"])
    T, TW = before["1.weight"], before["1.weight"] @ before["0.weight"]
    joined = [("linear", 5, 2, True), ("tanh",), ("linear", 3, 5, True), ("linear", 3, 3, False)]
    flat = np.concatenate([TW.ravel(), T @ before["0.bias"], theta[15 + 25 :]])
    G = loss_and_gradient(joined, flat, x[0], y[0])[1][:10].reshape(5, 2)
    assert relative_error(T @ after["0.weight"], TW - ALPHA * T @ T.T @ G) < PRECISE


def test_the_bias_that_a_context_makes_moves_by_more_than_a_bias():
    """To first order by alpha (I + W_z W_z' + |z|^2) d: the paper's reason for it."""
    _, net, theta, batch = case_of("bias transformation")
    x, y, alpha = batch.x_support[:1], batch.y_support[:1], 1e-6
    phi = rm.MAML(alpha, 1).adapt(net, theta, x, y)[0]
    d = net.named(net.gradient(theta[None], x, y)[0])["1.bias"]
    W_z, z = net.named(theta)["1.weight"][:, 2:], net.named(theta)["0.context"]
    ends = [
        (p["1.weight"][:, 2:] @ p["0.context"] + p["1.bias"]) for p in map(net.named, (phi, theta))
    ]
    wanted = -(np.eye(5) + W_z @ W_z.T + z @ z * np.eye(5)) @ d
    assert relative_error((ends[0] - ends[1]) / alpha, wanted) < 1e-5
