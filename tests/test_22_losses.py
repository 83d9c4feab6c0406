"""Binary cross-entropy, Huber's loss, the Gaussian likelihood, and cross-entropy with
smoothing and weights: planted errors, PyTorch's own losses, large outputs, arguments.

test_20_layers.py checks their passes.
"""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest

import refmaml as rm
from refmaml import kernels
from refmaml.doctor.conditioning import perturbed_probabilities
from refmaml.execution.fusion import plan
from refmaml.oracles import cases, meta_objectives, method_checks
from refmaml.oracles.layer_checks import loss_checks
from refmaml.oracles.tolerance import relative_error, tolerance

K = kernels.reference()
NEW = (rm.BCEWithLogits, rm.Huber, rm.GaussianNLL, rm.WeightedCrossEntropy)
LOSSES = [loss for loss in cases.LOSSES if isinstance(loss, NEW)]
EACH = [rm.BCEWithLogits(), rm.Huber(delta=0.5), rm.GaussianNLL(),
        rm.WeightedCrossEntropy(label_smoothing=0.1, weight=(1, 2, 0.5, 1))]  # fmt: skip
AGREES = 1e-11  # with autodiff libraries in float64, as in test_80_autodiff.py
PRECISE = 1e-12  # a meta-gradient of two steps against the complex step


# ---- planted errors ------------------------------------------------------------------


def with_terms(wrong):
    """A change of what an elementwise loss returns for (z, t, (l, l', l''))."""

    def plant(loss):
        def terms(self, k, z, targets):
            return wrong(z, targets, *type(loss).terms(self, k, z, targets))

        return terms

    return "terms", plant


def with_backward(wrong):
    """A change of dz, from what is saved."""
    return (
        "backward",
        lambda loss: lambda self, k, saved: wrong(saved, type(loss).backward(self, k, saved)),
    )


def with_r_backward(wrong):
    """A change of rdz, from what is saved and rz."""
    return (
        "r_backward",
        lambda loss: (
            lambda self, k, saved, rz: wrong(saved, rz, type(loss).r_backward(self, k, saved, rz))
        ),
    )


def with_scale(factor):
    """Another factor in front of the sum, in the forward pass alone."""

    def plant(loss):
        def forward(self, k, z, targets):
            value, saved = type(loss).forward(self, k, z, targets)
            return factor * value, saved

        return forward

    return "forward", plant


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def halves(a):
    D = a.shape[2] // 2
    return a[:, :, :D], a[:, :, D:]


def joined(*parts):
    return np.concatenate(parts, axis=2)


WRONG = {
    rm.BCEWithLogits(pos_weight=2.0): {
        "pos_weight forgotten in the gradient": with_terms(
            lambda z, t, f, df, ddf: (f, sigmoid(z) - t, ddf)
        ),
        "pos_weight forgotten in the Hessian": with_terms(
            lambda z, t, f, df, ddf: (f, df, sigmoid(z) * sigmoid(-z))
        ),
        "times 1.001": with_scale(1.001),
        "gradient with the wrong sign": with_backward(lambda saved, dz: -dz),
        "no curvature": with_r_backward(lambda saved, rz, rdz: 0 * rdz),
    },
    rm.Huber(delta=0.5): {
        "a square everywhere": with_terms(lambda z, t, f, df, ddf: (f, z - t, ddf)),
        "a curvature everywhere": with_terms(lambda z, t, f, df, ddf: (f, df, 1 + 0 * df)),
        "delta forgotten in the slope": with_terms(
            lambda z, t, f, df, ddf: (f, np.where(abs((z - t).real) > 0.5, df / 0.5, df), ddf)
        ),
        "smooth L1, not divided by delta": with_scale(2.0),
        "the offset forgotten": with_terms(
            lambda z, t, f, df, ddf: (np.where(abs((z - t).real) > 0.5, f + 0.125, f), df, ddf)
        ),
    },
    rm.GaussianNLL(): {
        "the half forgotten": with_scale(2.0),
        "the variance for its logarithm": with_backward(
            lambda saved, dz: joined(halves(dz)[0], halves(dz)[1] / np.exp(-saved.inverse))
        ),
        "log-variance's gradient without the square": with_backward(
            lambda saved, dz: joined(halves(dz)[0], 0 * saved.u + saved.scale / 2)
        ),
        "no mixed term": with_r_backward(
            lambda saved, rz, rdz: joined(
                saved.scale * saved.inverse**2 * halves(rz)[0], halves(rdz)[1]
            )
        ),
        "the variance held fixed": with_r_backward(
            lambda saved, rz, rdz: joined(halves(rdz)[0], 0 * saved.u)
        ),
    },
    rm.WeightedCrossEntropy(label_smoothing=0.1, weight=(1, 2, 0.5, 3)): {
        "the mean without weights": with_scale(0.9),
        "smoothing forgotten": with_backward(
            lambda saved, dz: saved.total * saved.p - np.where(saved.q == saved.q.max(
                axis=2, keepdims=True), saved.total, 0)
        ),
        "weights forgotten in front of p": with_backward(
            lambda saved, dz: saved.total.mean() * saved.p - saved.q
        ),
        "p p' dropped": with_r_backward(lambda saved, rz, rdz: saved.total * saved.p * rz),
        "weights forgotten in the Hessian": with_r_backward(
            lambda saved, rz, rdz: rdz / saved.total / rz.shape[1]
        ),
    },
}  # fmt: skip
PLANTED = [(loss, name) for loss, errors in WRONG.items() for name in errors]


@pytest.mark.parametrize("loss,error", PLANTED, ids=str)
def test_an_error_planted_in_a_loss_is_caught(loss, error):
    assert all(c.passed for c in loss_checks(loss, K))
    name, plant = WRONG[loss][error]
    # The loops of the forward pass are found by the name of the class.
    kind = type(type(loss).__name__, (type(loss),), {name: plant(loss)})
    planted = kind(**vars(loss))
    assert any(not c.passed for c in loss_checks(planted, K))


# ---- PyTorch and other closed forms --------------------------------------------------


def torch_loss(loss, z, y):
    """PyTorch's own loss of one task; "sum/K" is "sum" times its factor."""
    import torch
    from torch import nn

    def tensor(values):
        return None if values is None else torch.tensor(values, dtype=torch.float64)

    N, D = z.shape
    reduction = "mean" if loss.reduction == "mean" else "sum"
    if isinstance(loss, rm.GaussianNLL):
        function = nn.GaussianNLLLoss(full=loss.full, reduction=reduction)
        value = function(z[:, : D // 2], y, torch.exp(z[:, D // 2 :]))
    elif isinstance(loss, rm.BCEWithLogits):
        value = nn.BCEWithLogitsLoss(reduction=reduction, pos_weight=tensor(loss.pos_weight))(z, y)
    elif isinstance(loss, rm.Huber):
        value = nn.HuberLoss(reduction=reduction, delta=loss.delta)(z, y)
    else:
        value = nn.CrossEntropyLoss(
            tensor(loss.weight), reduction=reduction, label_smoothing=loss.label_smoothing
        )(z, y)
        return value * (D / N if loss.reduction == "sum/K" else 1)
    return value * (1 / N if loss.reduction == "sum/K" else 1)


@pytest.mark.frameworks("torch")
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_value_gradient_and_hessian_agree_with_pytorch(loss):
    import torch

    rng = np.random.default_rng(1)
    z, y = cases.loss_inputs(loss, rng)
    value, saved = loss.forward(K, z, y)
    dz, rz = loss.backward(K, saved), rng.standard_normal(z.shape)
    rdz = loss.r_backward(K, saved, rz)
    for t in range(len(z)):
        Z, Y = torch.tensor(z[t], requires_grad=True), torch.tensor(y[t])
        theirs = torch_loss(loss, Z, Y)
        (DZ,) = torch.autograd.grad(theirs, Z, create_graph=True)
        (RDZ,) = torch.autograd.grad((DZ * torch.tensor(rz[t])).sum(), Z)
        for ours, a in ((value[t], theirs), (dz[t], DZ), (rdz[t], RDZ)):
            assert relative_error(ours, a.detach().numpy()) <= AGREES


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


@pytest.mark.parametrize("reduction", ["mean", "sum", "sum/K"])
def test_without_smoothing_and_weights_it_is_plain_cross_entropy(reduction):
    plain, weighted = rm.CrossEntropy(reduction), rm.WeightedCrossEntropy(reduction)
    ones = rm.WeightedCrossEntropy(reduction, weight=(1, 1, 1, 1))
    z, y = cases.loss_inputs(plain, np.random.default_rng(0))
    rz = z[::-1].copy()
    results = []
    for loss in (plain, weighted, ones):
        value, saved = loss.forward(K, z, y)
        results.append((value, loss.backward(K, saved), loss.r_backward(K, saved, rz)))
        assert np.array_equal(loss.accuracy(z, y), plain.accuracy(z, y))
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            assert relative_error(a, b) <= tolerance(float, 16)


def test_a_huber_loss_with_a_large_delta_is_half_the_square():
    half, huber = rm.MSE(factor=0.5), rm.Huber(delta=1e3)
    z, y = cases.loss_inputs(half, np.random.default_rng(0))
    assert np.allclose(half.forward(K, z, y)[0], huber.forward(K, z, y)[0], rtol=1e-14)


# ---- nets ----------------------------------------------------------------------------


def net_with(loss):
    return rm.Sequential([rm.Linear(3, 5), rm.Tanh(), rm.Linear(5, 4)], loss, (3,))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_meta_gradient_agrees_with_the_complex_step(loss):
    rate = 0.3 if loss.reduction == "mean" else 0.02
    net, method = net_with(loss), rm.MAML(rate, 2)
    theta, batch, _ = cases.method_case(net, meta_objectives.fixed_rates(net, method))
    assert method_checks.meta_gradient_check(method, net, theta, batch).error <= PRECISE


@pytest.mark.parametrize("loss", EACH, ids=str)
def test_a_net_on_the_cpu_kernels_runs_layer_by_layer_with_these_losses(loss):
    net = net_with(loss)
    theta, batch, _ = cases.method_case(net, [0.1] * 2)
    assert plan(net, (3,)) is None and plan(net.with_loss(rm.CrossEntropy()), (3,)) is not None
    ours, truth = (
        rm.MAML(0.1, 2).meta_gradient(n, theta, batch).grad for n in (net.with_kernels("cpu"), net)
    )
    assert relative_error(ours, truth) <= tolerance(float, 100)


# ---- large outputs, precisions -------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", [rm.BCEWithLogits(), *EACH[1:2], EACH[3]], ids=str)
def test_large_outputs_overflow_nowhere(loss, dtype):
    z = np.array([[-1e4, 1e4, -90, 90], [800, -800, 0, 1e4]], dtype)[None]
    for y in (np.zeros_like(z), np.ones_like(z)):
        y = y[0, None, :, 0].astype(int) if isinstance(loss, rm.CrossEntropy) else y
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            value, saved = loss.forward(K, z, y)
            dz, rdz = loss.backward(K, saved), loss.r_backward(K, saved, np.ones_like(z))
        for a in (value, dz, rdz):
            assert np.isfinite(a).all() and a.dtype == dtype


def test_the_gradient_of_a_sure_and_right_output_keeps_its_digits():
    """s - t would be 1 - 1 = 0 for z = 40 and t = 1."""
    z, t = np.array([[[40.0, -40.0]]]), np.array([[[1.0, 0.0]]])
    loss = rm.BCEWithLogits("sum")
    value, saved = loss.forward(K, z, t)
    exact = np.exp(-40)
    assert np.allclose(value, 2 * exact, rtol=1e-12)
    assert np.allclose(loss.backward(K, saved), [[[-exact, exact]]], rtol=1e-12)
    assert np.allclose(loss.r_backward(K, saved, np.ones_like(z)), exact, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_float32_agrees_with_float64(loss):
    z, y = cases.loss_inputs(loss, np.random.default_rng(0))
    rz = z[::-1].copy()
    results = []
    for dtype in (np.float32, np.float64):
        targets = y.astype(dtype) if y.dtype.kind == "f" else y
        value, saved = loss.forward(K, z.astype(dtype), targets)
        results.append(
            (value, loss.backward(K, saved), loss.r_backward(K, saved, rz.astype(dtype)))
        )
    for a, b in zip(*results, strict=True):
        assert a.dtype == np.float32 and relative_error(a, b) <= tolerance(np.float32, 16)


def test_the_fraction_of_right_binary_outputs():
    z, t = np.array([[[1.0, -1.0], [2.0, 3.0]]]), np.array([[[1.0, 1.0], [0.9, 0.2]]])
    assert rm.BCEWithLogits().accuracy(z, t).tolist() == [0.5]
    assert rm.Huber().accuracy(z, t) is None and rm.GaussianNLL().accuracy(z, t) is None


# ---- arguments and copies ------------------------------------------------------------

X, THREE = np.ones((1, 2, 3)), np.ones((1, 2, 3))


def gradient(loss, y, outputs=3):
    net = rm.Sequential([rm.Linear(3, outputs)], loss, (3,))
    return net.gradient(net.init(0, float)[None], X, y)


REFUSED = [
    (lambda: rm.BCEWithLogits("average"), "reduction: expected one of mean, sum, sum/K"),
    (lambda: rm.BCEWithLogits(pos_weight=0), "pos_weight: expected a finite number > 0, got 0"),
    (lambda: rm.BCEWithLogits(pos_weight=[1, -1]), "pos_weight: expected a sequence of finite"),
    (lambda: rm.BCEWithLogits(pos_weight="ab"), "pos_weight: expected a sequence of finite"),
    (
        lambda: gradient(rm.BCEWithLogits(pos_weight=[1, 2]), THREE),
        "pos_weight: expected 3 numbers, one for each output, got 2",
    ),
    (
        lambda: gradient(rm.BCEWithLogits(), 1.5 * THREE),
        "y: expected targets in [0, 1] for BCEWithLogits, got a target 1.5",
    ),
    (
        lambda: gradient(rm.BCEWithLogits(), -THREE),
        "y: expected targets in [0, 1] for BCEWithLogits, got a target -1.0",
    ),
    (lambda: gradient(rm.BCEWithLogits(), np.nan * THREE), "got a target nan"),
    (lambda: gradient(rm.BCEWithLogits(), THREE.astype(int)), "y: expected real numbers"),
    (lambda: gradient(rm.BCEWithLogits(), THREE[..., :2]), "y: expected shape (1, 2, 3)"),
    (lambda: rm.Huber(delta=0), "delta: expected a finite number > 0, got 0"),
    (lambda: rm.Huber(delta="1"), "delta: expected a finite number > 0, got '1'"),
    (lambda: gradient(rm.Huber(), THREE[..., 0]), "y: expected shape (1, 2, 3) for Huber"),
    (lambda: rm.GaussianNLL(full=1), "full: expected True or False, got 1"),
    (lambda: gradient(rm.GaussianNLL(), THREE), "net: expected outputs of shape (2 D,)"),
    (lambda: gradient(rm.GaussianNLL(), THREE, 4), "y: expected shape (1, 2, 2) for GaussianNLL"),
    (
        lambda: rm.WeightedCrossEntropy(label_smoothing=1.1),
        "label_smoothing: expected a number in [0, 1], got 1.1",
    ),
    (lambda: rm.WeightedCrossEntropy(label_smoothing=True), "label_smoothing: expected a number"),
    (lambda: rm.WeightedCrossEntropy(weight=()), "weight: expected a sequence of finite"),
    (lambda: rm.WeightedCrossEntropy(weight=2.0), "weight: expected a sequence of finite"),
    (lambda: rm.WeightedCrossEntropy(weight=(0, 0)), "weight: expected a weight > 0"),
    (
        lambda: gradient(rm.WeightedCrossEntropy(weight=(1, 2)), np.zeros((1, 2), int)),
        "weight: expected 3 numbers, one for each output, got 2",
    ),
    (
        lambda: gradient(rm.WeightedCrossEntropy(), np.full((1, 2), 3)),
        "y: expected labels in 0..2, got a label 3",
    ),
]


@pytest.mark.parametrize("make,message", REFUSED, ids=[m for _, m in REFUSED])
def test_a_bad_argument_is_refused_in_one_line(make, message):
    with pytest.raises(rm.ArgumentError) as error:
        make()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_task_without_a_weight_is_named():
    loss = rm.WeightedCrossEntropy(weight=(0, 1, 1))
    net = rm.Sequential([rm.Linear(3, 3)], loss, (3,))
    x, y = np.ones((2, 2, 3)), np.array([[1, 2], [0, 0]])
    with pytest.raises(rm.NonFiniteError, match="task 1"):
        rm.MAML(0.1).meta_gradient(net, net.init(0, float), rm.Batch(x, y, x, y))


@pytest.mark.parametrize(
    "loss", [*EACH, rm.BCEWithLogits(pos_weight=np.array([1.0, 2.0]))], ids=str
)
def test_copies_and_pickles_are_equal(loss):
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), replace(loss)):
        assert twin == loss and hash(twin) == hash(loss)


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
