"""Binary cross-entropy, Huber's loss, the Gaussian likelihood, and cross-entropy with
smoothing and weights: PyTorch's own losses, closed forms, large outputs, precisions.

test_20_layers.py checks their passes.
"""

import numpy as np
import pytest
from loss_cases import AGREES, EACH, LOSSES

import refmaml as rm
from refmaml import kernels
from refmaml.oracles import cases
from refmaml.oracles.tolerance import relative_error, tolerance

K = kernels.reference()


# ---- PyTorch and other closed forms --------------------------------------------------


def torch_loss(loss, z, y):
    """PyTorch's own loss of one task; "sum/K" is "sum" times its factor."""
    import torch
    from torch import nn

    def tensor(values):
        return None if values is None else torch.tensor(values, dtype=torch.float64)

    N, D = z.shape
    reduction = "mean" if loss.reduction == "mean" else "sum"
    if isinstance(loss, rm.BoundedGaussianNLL):
        sigma = loss.floor + (1 - loss.floor) * nn.functional.softplus(z[:, D // 2 :])
        terms = -torch.distributions.Normal(z[:, : D // 2], sigma).log_prob(y)
        terms = terms - (0 if loss.full else np.log(2 * np.pi) / 2)
        value = terms.mean() if reduction == "mean" else terms.sum()
    elif isinstance(loss, rm.GaussianNLL):
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
