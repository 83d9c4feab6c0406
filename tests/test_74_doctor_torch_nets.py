"""Functions of PyTorch that implement a net of refmaml, net=: what has a name."""

import pytest

import refmaml as rm

pytestmark = pytest.mark.frameworks("torch")
METHOD = rm.MAML(0.3, 2)


def small():
    return rm.mlp((3, 8, 2), activation="tanh", loss=rm.MSE())


def checked(fn, method=METHOD, net=None, **options):
    options = {"repeats": 0, "precision": "float64"} | options
    return rm.check_meta_gradient(fn, method, framework="torch", net=net or small(), **options)


def maml(loss, lr=0.3, steps=2, query_loss=None, frozen=(), stages=False, **options):
    """fn(params, batch): MAML on a loss of named parameters."""
    import torch

    def fn(params, batch):
        still = {n: p for n, p in params.items() if n in frozen}
        theta = {n: p.clone().requires_grad_() for n, p in params.items() if n not in frozen}
        inner, after, query = [[] for _ in range(steps)], [[] for _ in range(steps)], []
        losses = []
        for xs, ys, xq, yq in zip(*batch, strict=True):
            phi = theta
            for k in range(steps):
                value = loss({**still, **phi}, xs, ys)
                g = torch.autograd.grad(value, list(phi.values()), create_graph=True, **options)
                inner[k].append(dict(zip(phi, g, strict=True)))
                phi = {n: p if d is None else p - lr * d
                       for (n, p), d in zip(phi.items(), g, strict=True)}  # fmt: skip
                after[k].append(phi)
            losses.append((query_loss or loss)({**still, **phi}, xq, yq))
            g = torch.autograd.grad(losses[-1], list(phi.values()), retain_graph=True, **options)
            query.append(dict(zip(phi, g, strict=True)))
        found = torch.autograd.grad(torch.stack(losses).mean(), list(theta.values()))
        grad = dict(zip(theta, found, strict=True))
        if not stages:
            return grad
        from torch_inner_loops import stacked

        return {
            "grad": grad,
            "inner_grad": [stacked(rows) for rows in inner],
            "phi": [stacked(rows) for rows in after],
            "query_grad": stacked(query),
        }

    return fn


def regression(activation):
    from own_loss_regression import regression

    return lambda params, x, y: regression(params, x, y, activation)


# ---- an operation whose second derivative is lost ------------------------------------


def test_a_lost_second_derivative_of_an_activation_is_named():
    from test_74_doctor_own_derivatives import tanh_function

    lost, right = (maml(regression(tanh_function(kind))) for kind in ("second", "right"))
    assert checked(right)
    report = checked(lost)
    assert "the second derivative of an operation is wrong" in report.diagnosis, str(report)
    assert "save_for_backward" in report.fix


def test_with_every_stage_right_the_lost_second_derivative_is_the_way_back():
    from test_74_doctor_own_derivatives import tanh_function

    report = checked(maml(regression(tanh_function("second")), stages=True))
    assert "the second derivative of an operation is wrong" in report.diagnosis, str(report)
    assert "query gradient" not in str(report) and "way back" in str(report)


# ---- norms ---------------------------------------------------------------------------


def images(norms=2):
    layers = [rm.Conv2d(1, 3, 3, padding=1), rm.BatchNorm2d(3, eps=1e-3), rm.Tanh()]
    layers += [rm.Conv2d(3, 3, 3, padding=1), rm.BatchNorm2d(3, eps=1e-3), rm.Tanh()]
    return rm.Sequential([*layers[: 3 * norms], rm.Flatten(), rm.Linear(75, 4)],
                         rm.CrossEntropy(), (1, 5, 5))  # fmt: skip


def features(params, x, stuck=None, norms=2):
    from torch.nn import functional as F

    for i in range(0, 3 * norms, 3):
        x = F.conv2d(x, params[f"{i}.weight"], params[f"{i}.bias"], padding=1)
        gamma, beta = (stuck or params)[f"{i + 1}.weight"], params[f"{i + 1}.bias"]
        x = F.batch_norm(x, None, None, gamma, beta, training=True, eps=1e-3).tanh()
    return x.flatten(1)


def of_images(norms):
    from torch.nn import functional as F

    head = f"{3 * norms + 1}"

    def loss(params, x, y):
        z = F.linear(features(params, x, None, norms), params[f"{head}.weight"],
                     params[f"{head}.bias"])  # fmt: skip
        return F.cross_entropy(z, y)

    return loss


@pytest.mark.parametrize(
    ("norms", "words"),
    [(1, "does not adapt 1.weight"), (2, "is no bias (norms: 1.weight, 4.weight)")],
)
def test_norms_that_use_their_own_weights_are_named(norms, words):
    import torch
    from torch.nn import functional as F

    def fn(params, batch):
        theta = {n: p.clone().requires_grad_() for n, p in params.items()}
        head, losses = f"{3 * norms + 1}", []

        def loss(p, x, y):
            h = features(p, x, theta, norms)
            return F.cross_entropy(F.linear(h, p[f"{head}.weight"], p[f"{head}.bias"]), y)

        for xs, ys, xq, yq in zip(*batch, strict=True):
            phi = theta
            for _ in range(2):
                g = torch.autograd.grad(
                    loss(phi, xs, ys), list(phi.values()), create_graph=True, allow_unused=True
                )
                phi = {n: p if d is None else p - 0.3 * d
                       for (n, p), d in zip(phi.items(), g, strict=True)}  # fmt: skip
            losses.append(loss(phi, xq, yq))
        value = torch.stack(losses).mean()
        return dict(zip(theta, torch.autograd.grad(value, list(theta.values())), strict=True))

    net = images(norms)
    assert checked(maml(of_images(norms)), net=net)
    report = checked(fn, net=net)
    assert "the inner loop does not adapt" in report.diagnosis and words in str(report)


@pytest.mark.parametrize("joint", [False, True])
def test_joint_features_of_anil_are_named(joint):
    import torch
    from torch.nn import functional as F

    def fn(params, batch):
        theta, losses = {n: p.clone().requires_grad_() for n, p in params.items()}, []
        for xs, ys, xq, yq in zip(*batch, strict=True):
            zs, zq = features(theta, xs), features(theta, xq)
            if joint:
                zs, zq = features(theta, torch.cat([xs, xq])).split([len(xs), len(xq)])
            w, b = theta["7.weight"], theta["7.bias"]
            for _ in range(2):
                value = F.cross_entropy(F.linear(zs, w, b), ys)
                dw, db = torch.autograd.grad(value, [w, b], create_graph=True)
                w, b = w - 0.3 * dw, b - 0.3 * db
            losses.append(F.cross_entropy(F.linear(zq, w, b), yq))
        value = torch.stack(losses).mean()
        return dict(zip(theta, torch.autograd.grad(value, list(theta.values())), strict=True))

    report = checked(fn, rm.ANIL(0.3, 2), images())
    if not joint:
        assert report
    else:
        words = "statistics are over the support and the query set together"
        assert words in report.diagnosis and report.fix, str(report)


# ---- dropout, frozen parameters, modules ---------------------------------------------


def dropout(params, x, y):
    from torch.nn import functional as F

    h = F.dropout(F.linear(x, params["0.weight"], params["0.bias"]).tanh(), 0.5, True)
    return F.mse_loss(F.linear(h, params["2.weight"], params["2.bias"]), y)


def test_dropout_that_the_net_does_not_have_is_noise_and_the_advice_leads_to_a_verdict():
    from test_74_doctor_own_random import seeded

    report = checked(maml(dropout), repeats=6)
    assert "noise (dropout" in report.diagnosis and "loss=" in report.fix, str(report)
    report = checked(seeded(maml(dropout)), seconds=2)
    assert "net= has none" in report.fix, str(report)


@pytest.mark.parametrize("answer", ["left out", "None", "zeros"])
def test_a_frozen_body_is_right_where_it_is_declared(answer):
    import torch

    body = ("0.weight", "0.bias")

    def fn(params, batch, first_order=False):
        kept = maml(regression(torch.tanh), frozen=body)(params, batch)
        if answer == "left out":
            return kept
        return {n: None if answer == "None" else torch.zeros_like(params[n]) for n in body} | kept

    method = rm.MAML(0.3, 2, frozen=body)
    assert checked(fn, method, not_meta_learned=("0.*",))
    assert checked(fn, rm.ANIL(0.3, 2), not_meta_learned=("0.*",))
    if answer == "left out":
        with pytest.raises(rm.ArgumentError, match="not_meta_learned="):
            checked(fn, method)
    else:
        report = checked(fn, method)
        assert report.diagnosis.startswith("0.weight, 0.bias: ")
        assert report.fix.startswith("right if they are not meta-learned: then declare not_meta")


def test_a_mistake_beside_a_gradient_that_is_none_is_named():
    from test_74_doctor_own_loss import meta

    def fn(params, batch):
        found = meta(lr=0.3, factors={"0.weight": 0.0, "0.bias": 0.0}, create_graph=False)
        return found(params, batch) | {"0.weight": None, "0.bias": None}

    report = checked(fn, rm.ANIL(0.3, 2))
    assert report.diagnosis.startswith("first-order"), str(report)
    assert any("not_meta_learned=('0.weight', '0.bias')" in r for r in report.remarks)


def test_a_module_in_the_place_of_a_net_is_one_line():
    from torch import nn

    with pytest.raises(rm.ArgumentError, match="net: expected a net of refmaml") as caught:
        checked(maml(dropout), net=nn.Sequential(nn.Linear(3, 2)))
    assert "loss=, params=, batch=" in str(caught.value) and "\n" not in str(caught.value)
